"""The wire to Redis or Valkey: a bounded set of connections, one deadline per call, one retry.

redis-py's own client spends as much CPU on a call as the rest of it (its pool's locks, a task per
write to time it, arguments packed in Python, telemetry), so this drives its connections directly.
It is the one place where redis-py's exceptions end: what leaves here is `StoreUnavailable`.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from history.errors import StoreUnavailable

Argument = bytes | str | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the digest under which the server remembers it."""

    name: str
    source: str
    sha: str


def load_script(name: str, *, prelude: str = "") -> Script:
    """The script `lua/<name>.lua`, with the script `prelude` in front of it."""
    folder = files("history") / "lua"
    parts = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in (prelude, name) if part]
    source = "\n".join(parts)
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class RedisLink:
    """Sends commands to one server. Opens nothing before the first one.

    Every command must be safe to send twice: after a lost connection it is sent once more on a fresh
    one. `sent` counts what went out, retries included, by the name of the script or command.
    """

    def __init__(self, url: str, *, size: int, timeout_s: float) -> None:
        self.sent: Counter[str] = Counter()
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(size)
        self._idle: list[AbstractConnection] = []
        self._closed = False
        # Only a parser of URLs and a maker of connections. Timeouts are ours, one around the whole call.
        self._maker = ConnectionPool.from_url(
            url,
            protocol=2,
            decode_responses=False,
            socket_timeout=None,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
        )

    async def run(self, script: Script, keys: Sequence[bytes], *arguments: Argument) -> Any:
        """Run a script by its digest, or by its source where the server does not know it yet."""
        with _translated():
            async with asyncio.timeout(self._timeout_s), self._slots:
                try:
                    return await self._ask(script.name, ("EVALSHA", script.sha, len(keys), *keys, *arguments))
                except NoScriptError:
                    return await self._ask(script.name, ("EVAL", script.source, len(keys), *keys, *arguments))

    async def command(self, name: str, *arguments: Argument) -> Any:
        """Send one command."""
        with _translated():
            async with asyncio.timeout(self._timeout_s), self._slots:
                return await self._ask(name, (name, *arguments))

    async def close(self) -> None:
        """Close the idle connections now and those in use when their call ends."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect()

    async def _ask(self, name: str, command: tuple[Argument, ...]) -> Any:
        try:
            return await self._exchange(name, command)
        except RedisConnectionError:
            # The server was restarted, most likely, and took every idle connection with it.
            while self._idle:
                await self._idle.pop().disconnect(nowait=True)
            return await self._exchange(name, command)

    def _connection(self) -> AbstractConnection:
        return self._maker.connection_class(**self._maker.connection_kwargs)

    async def _exchange(self, name: str, command: tuple[Argument, ...]) -> Any:
        connection = self._idle.pop() if self._idle else self._connection()
        self.sent[name] += 1
        reusable = False
        try:
            packed = pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of one
            await connection.send_packed_command(packed, check_health=False)
            answer = await connection.read_response()
            reusable = True
        except ResponseError:
            reusable = True
            raise
        finally:
            if reusable and not self._closed:
                self._idle.append(connection)
            else:  # also when cancelled: its answer is still to come and belongs to nobody
                await connection.disconnect(nowait=True)
        return answer


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise StoreUnavailable("the store did not answer in time") from error
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the store did not answer: {error}") from error
