"""A stub node as a process of its own: start it on free ports, talk to its control port, stop it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench.stub_node.spec import StubSpec

_START_SECONDS = 20.0
_END_SECONDS = 5.0
_ROOT = Path(__file__).resolve().parents[2]


class Announcement(msgspec.Struct, frozen=True):
    """The one line that a stub node prints when it listens."""

    url: str
    control_url: str


@dataclass(frozen=True, slots=True)
class StubProcess:
    """A running stub node; the methods speak to its control port, which answers even while it refuses."""

    url: str
    control_url: str
    process: asyncio.subprocess.Process
    client: httpx.AsyncClient

    async def stats(self) -> dict[str, Any]:
        """Counters and the last requests, as in GET /stub/stats."""
        return self._checked(await self.client.get("/stub/stats"))

    async def set_faults(self, *faults: dict[str, Any]) -> None:
        """Replace all faults; without arguments, clear them."""
        self._checked(await self.client.post("/stub/faults", json=list(faults)))

    async def reset_cache(self) -> None:
        self._checked(await self.client.post("/stub/reset_cache"))

    def kill(self) -> None:
        """End the process as a crash would: SIGKILL."""
        if self.process.returncode is None:
            self.process.kill()

    @staticmethod
    def _checked(answer: httpx.Response) -> dict[str, Any]:
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body


@asynccontextmanager
async def start_stub(spec: StubSpec | None = None, *, port: int = 0) -> AsyncIterator[StubProcess]:
    """Run a stub node until the block is left. Raises RuntimeError when it does not come up.

    The child ends with its standard input, so that a parent that is killed leaves no orphan.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.stub_node", "--port", str(port), "--end-with-stdin",
        *arguments(spec or StubSpec()),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=_ROOT,
    )  # fmt: skip
    try:
        said = await _announcement(process)
        async with httpx.AsyncClient(base_url=said.control_url, trust_env=False) as client:
            yield StubProcess(said.url, said.control_url, process, client)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.communicate(), _END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def arguments(spec: StubSpec) -> list[str]:
    """The command line that makes a node of this spec."""
    return [
        part for f in fields(spec) for part in (f"--{f.name.replace('_', '-')}", str(getattr(spec, f.name)))
    ]


async def _announcement(process: asyncio.subprocess.Process) -> Announcement:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        return msgspec.json.decode(line, type=Announcement)
    except (TimeoutError, msgspec.DecodeError) as error:
        raise RuntimeError("the stub node did not come up; see what it wrote to standard error") from error
