"""A gateway and stub nodes as processes of their own, started as a user would.

Each ends with its block: the gateway by SIGTERM, within `ENDS_WITHIN_S`, and what it wrote to standard error
is kept for the test to look at.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from bench.stub_node.process import arguments
from bench.stub_node.spec import StubSpec
from tests.ports import free_port

ENDS_WITHIN_S = 15.0
_COMPLAINT = re.compile(
    "never retrieved|never awaited|was destroyed|Unclosed|ResourceWarning|Event loop is closed"
)
"""What asyncio says of a task, a future or a transport that nobody looked after."""
_ROOT = Path(__file__).parents[1]


@dataclass(slots=True)
class Stub:
    """A stub node and its control port."""

    url: str
    control: httpx.Client
    process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()

    def stats(self) -> dict[str, Any]:
        """Counters and the last requests."""
        return self._checked(self.control.get("/stub/stats"))

    def set_faults(self, *faults: dict[str, Any]) -> None:
        """Replace all faults; without arguments, clear them. Only chat completions are hit unless said."""
        path = "/v1/chat/completions"
        self._checked(self.control.post("/stub/faults", json=[{"path": path, **fault} for fault in faults]))

    def prompts(self) -> list[list[dict[str, Any]]]:
        """The messages of the last requests, oldest first."""
        return [request["body"]["messages"] for request in self.stats()["recent"]]

    @staticmethod
    def _checked(answer: httpx.Response) -> dict[str, Any]:
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body


@dataclass(slots=True)
class Gateway:
    """A gateway that accepts requests."""

    url: str
    admin_url: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    @property
    def port(self) -> int:
        """The data port."""
        return int(self.url.rpartition(":")[2])

    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        self.log.seek(0)
        return self.log.read().decode()


@contextlib.contextmanager
def running_stub(*, port: int | None = None, **traits: Any) -> Iterator[Stub]:
    """A stub node of these traits; its port stays free after its end, to start it there again."""
    where = ("--port", str(port or free_port()))
    command = [sys.executable, "-m", "bench.stub_node", *where, "--end-with-stdin"]
    with subprocess.Popen(
        [*command, *arguments(StubSpec(**traits))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
    ) as process:
        try:
            said = _first_line(process)
            with httpx.Client(base_url=said["control_url"], trust_env=False) as control:
                yield Stub(said["url"], control, process)
        finally:
            _end(process)


@contextlib.contextmanager
def running_gateway(
    *nodes: str, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None, auth: bool = False
) -> Iterator[Gateway]:
    """A gateway over these nodes (`engine=url`); dialogues in memory and no keys unless told otherwise."""
    command = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--admin-port", "0"]
    command += [part for node in nodes for part in ("--node", node)]
    # A node's requests are counted by many tests; `test_engine_facts` lets it be tried out.
    command += [] if any("roster.trial" in option for option in options) else ["--set", "roster.trial=false"]
    command += [] if "--redis" in options else ["--redis", "memory"]
    command += [*([] if auth else ["--no-auth"]), *options]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, cwd=_ROOT, env={**os.environ, **(env or {})}
        ) as process,
    ):
        try:
            said = _first_line(process)
            yield Gateway(said["url"], said["admin_url"], process, log)
        finally:
            _end(process)
        log.seek(0)
        assert [] == [line for line in log.read().decode().splitlines() if _COMPLAINT.search(line)]


def until(holds: Callable[[], bool], *, within_s: float = 20.0, every_s: float = 0.01) -> bool:
    """Whether it comes to hold in time."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(every_s)
    return True


def _first_line(process: "subprocess.Popen[bytes]") -> dict[str, str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} did not come up")
    said: dict[str, str] = json.loads(line)
    return said


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
