"""The keeper by itself: its locks, the newest claim, a bounded log, a command that is not there."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.trainers.rooms import left_of
from training.ports import Plan, Run
from training.trainer.processes import Processes, end_strays

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


def plan(*command: str) -> Plan:
    """A plan with nothing but a command."""
    return Plan(command, {}, {}, Path(), False, ())


@pytest.fixture
async def folders(tmp_path: Path) -> AsyncIterator[tuple[Path, Path]]:
    """Two jobs' folders; whatever runs for them is ended."""
    two = (tmp_path / "one", tmp_path / "two")
    for folder in two:
        folder.mkdir()
    yield two
    for folder in two:
        end_strays(folder)


async def ended(runs: Processes, folder: Path) -> Run:
    """Wait until nothing of it is left."""
    async with asyncio.timeout(30):
        while (run := await runs.find(folder)).state == "alive":  # noqa: ASYNC110  # another process tells nothing
            await asyncio.sleep(0.05)
    return run


async def lost(runs: Processes, folder: Path) -> None:
    """Wait until its keeper is gone."""
    async with asyncio.timeout(30):
        while (await runs.find(folder)).state != "lost":  # noqa: ASYNC110  # another process tells nothing
            await asyncio.sleep(0.05)


async def test_neither_a_folder_nor_a_gpu_has_two_at_once(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """By locks on the machine, whatever the leases say; a GPU of its own is another matter."""
    one, two = folders
    first = Processes(tmp_path / "locks", ("0", "1"), grace_s=1)
    other = Processes(tmp_path / "locks", ("2",), grace_s=1)

    assert await first.start(one, plan(*SLEEP), fence=1) == "started"
    assert await first.start(one, plan(*SLEEP), fence=2) == "busy"
    assert await Processes(tmp_path / "locks", ("1",)).start(two, plan(*SLEEP), fence=1) == "busy"
    assert await other.start(two, plan(*SLEEP), fence=1) == "started"

    for runs, folder in ((first, one), (other, two)):
        run = await runs.stop(folder, await runs.find(folder))
        assert (run.state, run.is_stopped, left_of(folder)) == ("ended", True, [])


async def test_an_older_claim_starts_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """A worker frozen before the start, and continued when all is over."""
    runs = Processes(tmp_path / "locks", (), grace_s=1)
    assert await runs.start(folders[0], plan(sys.executable, "-c", ""), fence=5) == "started"
    assert (await ended(runs, folders[0])).code == 0

    assert await runs.start(folders[0], plan(*SLEEP), fence=4) == "outdated"
    assert left_of(folders[0]) == []


async def test_what_cannot_be_started_ends_with_its_reason(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """As a shell says it: 127."""
    runs = Processes(tmp_path / "locks", ())
    await runs.start(folders[0], plan("/nowhere/llamafactory-cli"), fence=1)

    assert (await ended(runs, folders[0])).code == 127
    assert (await runs.cause(folders[0], 127)).code == "trainer_failed"


async def test_a_talkative_trainer_does_not_fill_the_disk(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest part and the one before are kept."""
    monkeypatch.setattr("training.trainer.processes.LOG_BYTES", 100_000)
    runs = Processes(tmp_path / "locks", ())
    talk = "for n in range(50_000): print(f'line {n:08}')"
    await runs.start(folders[0], plan(sys.executable, "-c", talk), fence=1)

    assert (await ended(runs, folders[0])).code == 0
    logs = sorted(folders[0].glob("trainer.log*"))
    assert sum(path.stat().st_size for path in logs) <= 200_000
    assert (folders[0] / "trainer.log").read_text().endswith("line 00049999\n")


async def test_what_a_killed_keeper_has_left_does_not_share_its_gpu(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Another job's keeper gets the lock that died with it, and ends what ran under it first."""
    one, two = folders
    runs = Processes(tmp_path / "locks", ("0",), grace_s=1)
    assert await runs.start(one, plan(*SLEEP), fence=1) == "started"
    os.kill((await runs.find(one)).pid, signal.SIGKILL)
    await lost(runs, one)
    assert left_of(one) != []

    assert await runs.start(two, plan(*SLEEP), fence=1) == "started"
    assert left_of(one) == []
    assert left_of(two) != []


LAUNCHER = """
import os, subprocess, sys
rank = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, "LOCAL_RANK": "0"},
                        start_new_session=True)
sys.exit(rank.wait())
"""
SAVES = """
import pathlib, signal, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
pathlib.Path("ready").touch()
while not asked:
    time.sleep(0.05)
time.sleep(2)
pathlib.Path("saved").touch()
"""


async def test_ranks_behind_a_launcher_have_time_to_save(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """A launcher that heard of it would end them at once; without patience everything is ended."""
    runs, one = Processes(tmp_path / "locks", (), grace_s=1, patience_s=20), folders[0]
    for is_patient in (True, False):
        assert await runs.start(one, plan(sys.executable, "-c", LAUNCHER, SAVES), fence=1) == "started"
        async with asyncio.timeout(30):
            while not (one / "ready").exists():  # noqa: ASYNC110  # another process tells nothing
                await asyncio.sleep(0.05)
        run = await runs.stop(one, await runs.find(one), patient=is_patient)

        assert (one / "saved").exists() is is_patient
        assert ("ended", True, []) == (run.state, run.is_stopped, left_of(one))
        for name in ("ready", "saved"):
            (one / name).unlink(missing_ok=True)
