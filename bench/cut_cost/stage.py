"""The processes of one arm: real CPU nodes and a gateway over them, with dialogues in memory."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

MODEL = "smollm2"
_ENDS_WITHIN_S = 20


@dataclass(frozen=True, slots=True)
class Stage:
    """Where to send requests, and where the gateway's counters are."""

    url: str
    admin_url: str


@contextlib.contextmanager
def stage(nodes: int, options: Sequence[str]) -> Iterator[Stage]:
    """Fresh nodes, so that no arm finds the prompts of another in their caches, and a gateway."""
    with contextlib.ExitStack() as stack:
        node = [sys.executable, "-m", "gateway.local.cpu_node", "--port", "0"]
        processes = [stack.enter_context(_running(node)) for _ in range(nodes)]
        urls = [_first_line(process)["url"] for process in processes]
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--admin-port", "0"]
        command += ["--redis", "memory", "--no-auth", "--model", MODEL]
        command += [part for url in urls for part in ("--node", f"openai={url}")]
        said = _first_line(stack.enter_context(_running([*command, *options])))
        yield Stage(url=said["url"], admin_url=said["admin_url"])


def background(on: Stage) -> dict[str, dict[str, int]]:
    """The gateway's count of what no user waited for, by purpose."""
    report: dict[str, dict[str, dict[str, int]]] = httpx.get(f"{on.admin_url}/admin/cache").json()
    return report["background"]


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _first_line(process: "subprocess.Popen[bytes]") -> dict[str, str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} did not come up")
    said: dict[str, str] = json.loads(line)
    return said
