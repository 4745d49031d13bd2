"""The wire to one server: its idle connections, and one exchange at a time on each.

redis-py's own client spends as much CPU on a call as the rest of it (its pool's locks, a task per write to
time it, arguments packed in Python, telemetry), so this drives its connections directly.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

Command = tuple[bytes | str | int | float, ...]


class Wire:
    """Connections to one server; `connect` makes one, not opened yet. Its user limits how many there are."""

    def __init__(self, connect: Callable[[], AbstractConnection]) -> None:
        self._connect = connect
        self._idle: list[AbstractConnection] = []
        self._closed = False

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands at once and take an answer for each; a refusal is an answer, as an exception.

        Raises redis-py's exceptions for everything that leaves an answer out.
        """
        connection = self._idle.pop() if self._idle else self._connect()
        reusable = False
        try:
            packed = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]  # its stub means a tuple of one
            await connection.send_packed_command(packed, check_health=False)
            answers = [await _answer(connection) for _ in commands]
            reusable = True
        except RedisConnectionError:
            # The server was restarted, most likely, and took every idle connection with it.
            while self._idle:
                await self._idle.pop().disconnect(nowait=True)
            raise
        finally:
            if reusable and not self._closed:
                self._idle.append(connection)
            else:  # also when cancelled: its answer is still to come and belongs to nobody
                await connection.disconnect(nowait=True)
        return answers

    async def close(self) -> None:
        """Close the idle connections now and those in use when their exchange ends."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect()


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal
