"""The keeper by itself: its locks, the newest claim, a bounded log, a command that is not there."""

import asyncio
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
