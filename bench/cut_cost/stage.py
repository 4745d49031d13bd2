"""The processes of one arm: real CPU nodes and a gateway over them, with dialogues in memory."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from bench.cut_cost.ear import Ear, overheard

MODEL = "smollm2"
_ENDS_WITHIN_S = 20
_BACK_WITHIN_S = 60
_CALMS_WITHIN_S = 5.0


class Node:
    """A CPU node that can be made to forget everything. It keeps its port."""

    def __init__(self) -> None:
        self._life = contextlib.ExitStack()
        self.url = self._start(0)

    def restart(self) -> None:
        """End it and start it again: its cache is empty then."""
        self._life.close()
        self._start(urlsplit(self.url).port or 0)

    def end(self) -> None:
        """Stop the process."""
        self._life.close()

    def _start(self, port: int) -> str:
        command = [sys.executable, "-m", "gateway.local.cpu_node", "--port", str(port)]
        return _first_line(self._life.enter_context(_running(command)))["url"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where to send requests, where the gateway's counters are, and what stands behind it."""

    url: str
    admin_url: str
    ear: Ear
    nodes: Sequence[Node]

    def tokens(self, text: str) -> int:
        """How many tokens the engine makes of a text."""
        if not text:
            return 0
        answer = httpx.post(f"{self.nodes[0].url}/tokenize", json={"content": text}, timeout=60)
        answer.raise_for_status()
        return len(answer.json()["tokens"])

    def forget(self) -> None:
        """Every node loses its cache, as over a night; the gateway finds all of them well again."""
        time.sleep(_CALMS_WITHIN_S)  # what the background still does would fail, and open a breaker
        for node in self.nodes:
            node.restart()
        # What the gateway asked of a node before it went may still say that it is well.
        seen_at = time.monotonic()
        while time.monotonic() < seen_at + _BACK_WITHIN_S:
            time.sleep(2.5)
            known = httpx.get(f"{self.admin_url}/admin/nodes").json()["data"]
            if all(node["healthy"] and node["breaker"] != "open" for node in known):
                return
        raise TimeoutError(f"the gateway found its nodes away for {_BACK_WITHIN_S} s")


@contextlib.contextmanager
def stage(count: int, options: Sequence[str]) -> Iterator[Stage]:
    """Fresh nodes, so that no arm finds the prompts of another in their caches, and a gateway."""
    with contextlib.ExitStack() as stack:
        nodes = [Node() for _ in range(count)]
        for node in nodes:
            stack.callback(node.end)
        ways, ear = stack.enter_context(overheard([node.url for node in nodes]))
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--admin-port", "0"]
        command += ["--redis", "memory", "--no-auth", "--model", MODEL]
        command += [part for way in ways for part in ("--node", f"openai={way}")]
        said = _first_line(stack.enter_context(_running([*command, *options])))
        yield Stage(url=said["url"], admin_url=said["admin_url"], ear=ear, nodes=nodes)


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
