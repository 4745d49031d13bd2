"""Keeps one part of the stack running: starts it, starts it again when it dies, ends it when told."""

import asyncio
import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.local import program, valkey
from gateway.local.bounded_log import BoundedLog
from gateway.local.parts import Part
from gateway.local.program import Program
from gateway.local.restarts import AT_MOST, WITHIN_S, delay_before_restart


class PartFailed(Exception):
    """A part did not start, or died too often. The message names it, the reason and its log."""


class Keeper:
    """One part and its present process. `start` once, then `watch`; `stop` ends both."""

    def __init__(self, part: Part, *, logs: Path, say: Callable[[str], None]) -> None:
        self.part = part
        self._log = BoundedLog(logs / f"{part.name}.log")
        self._say = say
        self._program: Program | None = None

    @property
    def pid(self) -> int | None:
        """The process id, once started."""
        return None if self._program is None else self._program.pid

    async def start(self) -> dict[str, Any]:
        """Start it and wait until it is ready; return what its ready line said. Raises `PartFailed`."""
        self._program = await program.start(self.part.command, log=self._log)
        try:
            async with asyncio.timeout(self.part.ready_within_s):
                said = await self._ready(self._program)
        except TimeoutError:
            self._program.kill()
            raise PartFailed(
                f"{self.part.name} was not ready within {self.part.ready_within_s:.0f} s [{self._log.path}]"
            ) from None
        if said is None:
            how = ending(await self._program.exited)
            await self._program.bury()
            why = self._log.last_line()
            raise PartFailed(f"{self.part.name} {how} before it was ready: {why} [{self._log.path}]")
        return said

    async def watch(self) -> None:
        """Start it again whenever it dies; raises `PartFailed` when that has stopped helping."""
        deaths: tuple[float, ...] = ()
        assert self._program is not None
        while True:
            how = ending(await asyncio.shield(self._program.exited))
            await self._program.bury()
            deaths = (*deaths, time.monotonic())[-AT_MOST - 1 :]
            delay = delay_before_restart(deaths)
            if delay is None:
                raise PartFailed(
                    f"{self.part.name} {how}, the {AT_MOST + 1}th time within {WITHIN_S:.0f} s: given up; "
                    f"see {self._log.path}"
                )
            self._say(f"{self.part.name} {how}; starting it again in {delay:.1f} s [{self._log.path}]")
            await asyncio.sleep(delay)
            await self._start_again()

    async def stop(self) -> None:
        """End it, in order if it can, and close its log."""
        if self._program is not None:
            await self._program.stop(within_s=self.part.stop_within_s)
            await self._program.bury()
        self._log.close()

    def kill(self) -> None:
        """End it at once; `stop` still has to be awaited."""
        if self._program is not None:
            self._program.kill()

    def keep_port(self, port: int) -> None:
        """From now on start it with this `--port`, the one that others already know."""
        words = list(self.part.command)
        words[words.index("--port") + 1] = str(port)
        self.part = dataclasses.replace(self.part, command=tuple(words))

    async def _start_again(self) -> None:
        try:
            await self.start()
        except PartFailed as failure:
            self._say(str(failure))
        else:
            self._say(f"{self.part.name} is back")

    async def _ready(self, running: Program) -> dict[str, Any] | None:
        if self.part.answers_on is None:
            return await asyncio.shield(running.ready)
        while not running.exited.done():
            if await valkey.answers(self.part.answers_on):
                return {"ready": True}
            await asyncio.sleep(valkey.ASK_AGAIN_AFTER_S)
        return None


def ending(code: int) -> str:
    """How a process ended, in words: `code` is negative for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"
