"""The processes of one arm, ready to answer, and their end."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from bench.overhead import peers
from bench.overhead.processes import child, free_port, last_line
from bench.rivals.arms import Arm, Front, project_python
from bench.rivals.fleet import Fleet
from bench.valkey_server import running
from history.window import WindowRule

_READY_WITHIN_S = 60.0


class NotReadyError(Exception):
    """An arm's process does not answer; the message says what it last said."""


@contextlib.contextmanager
def entrances(
    arm: Arm, fleet: Fleet, rule: WindowRule, *, replicas: int, settings: Sequence[str]
) -> Iterator[list[str]]:
    """Where an arm's clients go. Raises `NotReadyError`, `peers.PeerUnavailableError`."""
    if arm.command is None:
        yield list(fleet.urls)
        return
    python = peers.ensure(arm.peer, say=print) if arm.peer else project_python()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="friendo-rivals-")))
        store = "" if arm.peer else stack.enter_context(running("everysec")).url
        fronts = [_front(fleet, rule, store, settings) for _ in range(replicas)]
        cores = frozenset(os.sched_getaffinity(0))
        for number, front in enumerate(fronts):
            log = folder / f"{number}.log"
            process = stack.enter_context(child(arm.command(front, python), cores=cores, log=log))
            _wait(f"http://127.0.0.1:{front.port}", front.model, log, lambda: process.poll() is None)  # noqa: B023
        yield [f"http://127.0.0.1:{front.port}" for front in fronts]


def _front(fleet: Fleet, rule: WindowRule, store_url: str, settings: Sequence[str]) -> Front:
    return Front(
        engine=fleet.engine,
        model=fleet.model,
        node_urls=fleet.urls,
        port=free_port(),
        spare_port=free_port(),
        store_url=store_url,
        rule=rule,
        settings=settings,
    )


def _wait(url: str, model: str, log: Path, is_alive: object) -> None:
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "ready?"}]}
    until = time.monotonic() + _READY_WITHIN_S
    said = "it did not listen"
    while time.monotonic() < until and callable(is_alive) and is_alive():
        try:
            answer = httpx.post(
                f"{url}/v1/chat/completions", json=body, timeout=_READY_WITHIN_S, trust_env=False
            )
            if answer.status_code == httpx.codes.OK:
                return
            said = answer.text[:200]
        except httpx.HTTPError as error:
            said = str(error)
        time.sleep(0.2)
    raise NotReadyError(f"{said}; its log ends: {last_line(log)}")
