"""The wire to one server: its idle lines, and one exchange at a time on each.

redis-py's own client spends as much CPU on a call as the rest of it (its pool's locks, a task per write to
time it, arguments packed in Python, telemetry), and its streams half as much again. So it opens a connection
and logs in, and then the transport is ours: one write, one callback with the answers, one future.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from hiredis import Reader, pack_command
from redis._parsers import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

Command = tuple[bytes | str | int | float, ...]

_CLOSED = "Connection closed by server."


class Wire:
    """Lines to one server; `connect` makes a connection, not opened yet. Its user limits their number."""

    def __init__(self, connect: Callable[[], AbstractConnection]) -> None:
        self._connect = connect
        self._idle: list[_Line] = []
        self._closed = False

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands at once and take an answer for each; a refusal is an answer, as an exception.

        Raises redis-py's exceptions for everything that leaves an answer out.
        """
        packed = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]  # its stub means a tuple of one
        line = self._idle.pop() if self._idle else await _opened(self._connect())
        reusable = False
        try:
            answers = await line.ask(packed, len(commands))
            reusable = True
        except RedisConnectionError:
            # The server was restarted, most likely, and took every idle line with it.
            while self._idle:
                await self._idle.pop().close()
            raise
        finally:
            if reusable and not self._closed:
                self._idle.append(line)
            else:  # also when cancelled: its answer is still to come and belongs to nobody
                await line.close()
        return answers

    async def close(self) -> None:
        """Close the idle lines now and those in use when their exchange ends."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()


class _Line(asyncio.Protocol):
    """A connection that is open and logged in."""

    def __init__(self, connection: AbstractConnection, transport: asyncio.Transport) -> None:
        self._connection = connection
        """Closes the transport when it goes, so it stays as long as the line does."""
        self._transport = transport
        self._reader = Reader(protocolError=InvalidResponse, replyError=BaseParser.parse_error)
        self._answers: list[Any] = []
        self._wanted = 0
        self._asked: asyncio.Future[list[Any]] | None = None
        self._loop = asyncio.get_running_loop()

    def ask(self, packed: bytes, wanted: int) -> "asyncio.Future[list[Any]]":
        """Send commands; the future has that many answers, or `RedisConnectionError`."""
        asked = self._asked = self._loop.create_future()
        self._answers, self._wanted = [], wanted
        if self._transport.is_closing():
            self._break(RedisConnectionError(_CLOSED))
        else:
            self._transport.write(packed)
        return asked

    async def close(self) -> None:
        """Close it, whatever is still to come."""
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                self._answers.append(answer)
        except InvalidResponse as error:
            self._break(error)
            return
        if len(self._answers) >= self._wanted and self._asked is not None and not self._asked.done():
            self._asked.set_result(self._answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(RedisConnectionError(f"Connection lost: {exc}" if exc else _CLOSED))

    def _break(self, error: Exception) -> None:
        self._transport.close()
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(error)


async def _opened(connection: AbstractConnection) -> _Line:
    """A line over this connection. Raises redis-py's exceptions."""
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # it has no types
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    writer = connection._writer  # noqa: SLF001 - redis-py hands out no transport
    assert writer is not None
    transport = cast("asyncio.Transport", writer.transport)  # a stream shows half of it
    line = _Line(connection, transport)
    transport.set_protocol(line)
    return line
