"""One program that the stack started: its output goes to its log, its ready line and its end are futures.

A program says that it is ready with one line of JSON on its standard output, `{"ready": true, ...}`. It runs
in a session of its own: Ctrl-C in the terminal reaches the supervisor alone, and the parts end in order.
"""

import asyncio
import json
import os
import signal
import subprocess
from typing import Any, cast

from gateway.local.bounded_log import BoundedLog
from gateway.local.child import wrapped

LINE_LIMIT_BYTES = 64 * 1024
STDOUT = 1
LAST_WORDS_WITHIN_S = 1.0


class Program(asyncio.SubprocessProtocol):
    """A running program.

    `ready` gives its ready line, or None if it ended without one; `exited` its exit code; `silent` is done
    when it has ended and all that it printed is in the log.
    """

    def __init__(self, log: BoundedLog) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.silent: asyncio.Future[None] = loop.create_future()
        self.pid = 0
        self._log = log
        self._transport: asyncio.SubprocessTransport | None = None
        self._line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol: the program runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Part of asyncio's protocol: the program printed something."""
        self._log.write(data)
        if fd == STDOUT and not self.ready.done():
            self._look_for_ready_line(data)

    def process_exited(self) -> None:
        """Part of asyncio's protocol: the program ended. What it started itself ends with it."""
        assert self._transport is not None
        self._signal_session(signal.SIGKILL)
        code = self._transport.get_returncode()
        assert code is not None
        self.exited.set_result(code)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Part of asyncio's protocol: it has ended and its output is read to the end."""
        if not self.ready.done():
            self.ready.set_result(None)
        self.silent.set_result(None)

    async def bury(self) -> None:
        """Wait, a second at most, until all that an ended program said is in its log; close its pipes."""
        await asyncio.wait((self.silent,), timeout=LAST_WORDS_WITHIN_S)
        if self._transport is not None:
            self._transport.close()

    async def stop(self, *, within_s: float) -> None:
        """End it in order, or at once after `within_s` seconds; return when it has ended."""
        if self.exited.done():
            return
        os.kill(self.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self.exited), within_s)
        except TimeoutError:
            self.kill()
            await self.exited

    def kill(self) -> None:
        """End it and everything in its session at once."""
        if not self.exited.done():
            self._signal_session(signal.SIGKILL)

    def _signal_session(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # nobody is left in it; macOS says so with the second

    def _look_for_ready_line(self, data: bytes) -> None:
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-LINE_LIMIT_BYTES:]
        for line in lines:
            said = _ready_line(line)
            if said is not None:
                self._line = b""
                self.ready.set_result(said)
                return


def _ready_line(line: bytes) -> dict[str, Any] | None:
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.get("ready") is True else None


async def start(command: tuple[str, ...], *, log: BoundedLog) -> Program:
    """Start a program that ends with this process, whatever ends it."""
    _, program = await asyncio.get_running_loop().subprocess_exec(
        lambda: Program(log),
        *wrapped(command, parent=os.getpid()),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    return program
