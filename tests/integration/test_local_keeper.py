"""One part of the stack and its life: started, started again, given up, ended."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from gateway.local.keeper import Keeper, PartFailed
from gateway.local.parts import Part, node_part

READY = 'print(\'{"ready": true, "url": "http://here"}\', flush=True)'
WAIT = "import time; time.sleep(60)"


def part(program: str, *, ready_within_s: float = 10, stop_within_s: float = 5) -> Part:
    return Part(
        name="part",
        command=(sys.executable, "-c", program),
        ready_within_s=ready_within_s,
        stop_within_s=stop_within_s,
        essential=True,
    )


def keeper(tmp_path: Path, what: Part) -> tuple[Keeper, list[str]]:
    lines: list[str] = []
    return Keeper(what, logs=tmp_path, say=lines.append), lines


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("did not happen within ten seconds")


async def fails(doing: Awaitable[object]) -> str:
    with pytest.raises(PartFailed) as failure:
        await doing
    return str(failure.value)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_the_ready_line_is_found_among_other_output(tmp_path: Path) -> None:
    """Whatever else a program prints, braces included, is not mistaken for it, and all is in the log."""
    noise = "print('{not json'); print('{\"ready\": false}'); print('loading', end=' '); print(); "
    kept, _ = keeper(tmp_path, part(noise + READY + "; " + WAIT))

    said = await kept.start()
    await kept.stop()

    assert said == {"ready": True, "url": "http://here"}
    assert (
        (tmp_path / "part.log")
        .read_text()
        .startswith('{not json\n{"ready": false}\nloading \n{"ready": true')
    )


async def test_a_part_that_ends_before_it_is_ready_says_why(tmp_path: Path) -> None:
    """The reason is the last thing it said; the line names part, reason and log."""
    kept, _ = keeper(tmp_path, part("import sys; sys.exit('no such model')"))

    message = await fails(kept.start())
    await kept.stop()

    log = tmp_path / "part.log"
    assert message == f"part ended with exit code 1 before it was ready: no such model [{log}]"


async def test_a_part_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    """A hanging part does not hang the start."""
    kept, _ = keeper(tmp_path, part(WAIT, ready_within_s=0.3))

    message = await fails(kept.start())
    await kept.stop()

    assert "part was not ready within 0 s" in message
    assert kept.pid is not None
    assert is_gone(kept.pid)


async def test_a_part_that_dies_is_named_and_started_again(tmp_path: Path) -> None:
    """One line says that it died and how, another that it is back."""
    kept, lines = keeper(tmp_path, part(f"{READY}; {WAIT}"))
    await kept.start()
    first = kept.pid
    watching = asyncio.ensure_future(kept.watch())
    kept.kill()
    await until(lambda: "part is back" in lines)
    watching.cancel()
    second = kept.pid
    await kept.stop()

    assert lines[0] == f"part was killed by SIGKILL; starting it again in 0.2 s [{tmp_path / 'part.log'}]"
    assert first != second


async def test_a_part_that_keeps_dying_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five restarts within a minute, then a line that says so."""
    monkeypatch.setattr("gateway.local.restarts.FIRST_DELAY_S", 0.01)
    kept, lines = keeper(tmp_path, part(READY))
    await kept.start()

    message = await fails(kept.watch())
    await kept.stop()

    assert lines.count("part is back") == 5
    assert message.startswith("part ended with exit code 0, the 6th time within 60 s: given up")


async def test_a_part_that_will_not_end_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """No process is left, whatever a part does with SIGTERM and whatever it started."""
    stubborn = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    grandchild = f"child = subprocess.Popen((sys.executable, '-c', {WAIT!r})); print(child.pid); "
    kept, _ = keeper(tmp_path, part(stubborn + grandchild + READY + "; " + WAIT, stop_within_s=0.2))
    await kept.start()
    pids = (kept.pid, int((tmp_path / "part.log").read_text().split()[0]))

    await kept.stop()

    await until(lambda: all(pid is not None and is_gone(pid) for pid in pids))


async def test_what_a_dead_part_started_ends_with_it(tmp_path: Path) -> None:
    """A worker that is killed does not leave its training run behind."""
    grandchild = f"import subprocess, sys; child = subprocess.Popen((sys.executable, '-c', {WAIT!r})); "
    kept, _ = keeper(tmp_path, part(grandchild + "print(child.pid); " + READY + "; " + WAIT))
    await kept.start()
    pid = int((tmp_path / "part.log").read_text().split()[0])
    assert kept.pid is not None

    psutil.Process(kept.pid).kill()

    await until(lambda: is_gone(pid))
    await kept.stop()


async def test_a_node_keeps_its_port_over_restarts(tmp_path: Path) -> None:
    """The gateway knows its nodes by address."""
    kept, _ = keeper(tmp_path, node_part(1))
    kept.keep_port(4321)
    await kept.stop()

    assert kept.part.command[kept.part.command.index("--port") + 1] == "4321"
