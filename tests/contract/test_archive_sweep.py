"""What expired conversations left in the archive goes, from files and a real S3 server; nothing else does."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import obstore
import pytest

from history.archive import SEGMENT
from history.conversation import ConversationKey
from history.errors import StoreUnavailable
from history.memory_store import MemoryStore
from history.object_archive import ObjectArchive
from history.ports import Counted
from history.sweeper import Sweeper, Swept
from tests.contract.store_stage import Stage, begun, say, turn
from tests.s3_server import running_s3

PIECE = [turn(str(at)) for at in range(SEGMENT)]
KEEP_S = 100.0
GONE, THERE = ConversationKey("t", "gone"), ConversationKey("t", "there")


@pytest.fixture(params=["files", "s3"])
def archive(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectArchive]:
    """Both kinds, empty."""
    if request.param == "files":
        yield ObjectArchive(tmp_path.as_uri())
        return
    (tmp_path / "bucket").mkdir()
    with running_s3(tmp_path) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield ObjectArchive("s3://bucket/dialogues")


async def store_with(*keys: ConversationKey) -> MemoryStore:
    """A store in which these conversations are."""
    stage = Stage(MemoryStore(), lambda *_: None, lambda _: MemoryStore())  # type: ignore[arg-type]  # not used
    for key in keys:
        await say(stage, key, "hello")
    assert isinstance(stage.store, MemoryStore)
    return stage.store


def sweeper(store: MemoryStore, archive: ObjectArchive, *, days_later: float = 1.0) -> Sweeper:
    """A sweep so much later, when `KEEP_S` has gone or not."""
    later = days_later * 86_400
    return Sweeper(store, archive, keep_s=KEEP_S, counts=True, clock=lambda: time.time() + later)


async def fill(archive: ObjectArchive, *keys: ConversationKey, pieces: int = 2) -> None:
    for key in keys:
        for number in range(pieces):
            await archive.write(key, number * SEGMENT, PIECE)


async def names(archive: ObjectArchive) -> list[str]:
    """Everything that is in it."""
    return sorted([one["path"] async for found in obstore.list(archive._objects) for one in found])


async def test_what_expired_goes_and_what_is_there_stays(archive: ObjectArchive) -> None:
    """Other tenants' and other programs' things as well."""
    others = [ConversationKey("u", "there"), ConversationKey("t", "{there}")]
    store = await store_with(THERE, *others)
    await obstore.put_async(archive._objects, "notes/readme.txt", b"mine")
    await obstore.put_async(archive._objects, f"{'0' * 32}/{'a' * 64}/backup", b"mine")
    await fill(archive, THERE, *others)
    wanted = await names(archive)
    await fill(archive, GONE, ConversationKey("u", "gone"), pieces=3)
    swept = await sweeper(store, archive).sweep()

    assert (2, 6, 0) == (swept.folders, swept.pieces, swept.refused)
    assert wanted == await names(archive)
    assert {"t": 2, "u": 1} == {tenant: found.conversations for tenant, found in swept.tenants.items()}
    for key in (THERE, *others):
        assert PIECE == list(await archive.read(key, 0, SEGMENT))


async def test_what_is_young_stays(archive: ObjectArchive) -> None:
    """A piece may have been written for a conversation that nobody sees yet."""
    store = await store_with(THERE)
    await fill(archive, GONE)

    assert 0 == (await sweeper(store, archive, days_later=0).sweep()).folders
    assert 2 == len(await names(archive))


async def test_a_piece_that_is_written_meanwhile_keeps_its_conversation_s(archive: ObjectArchive) -> None:
    """The id is used again at the very moment: the last look is at the folder itself."""

    class Late(MemoryStore):
        looks = 0

        async def census(self) -> AsyncGenerator[Sequence[Counted], None]:
            self.looks += 1
            if self.looks == 2:
                await archive.write(GONE, 0, PIECE)
            async for some in super().census():
                yield some

    store = Late()
    await say(Stage(store, None, None), THERE, "hello")  # type: ignore[arg-type]  # not used
    await fill(archive, GONE)
    written = max(one["last_modified"].timestamp() for one in obstore.list(archive._objects).collect())
    # The archive's clock may be coarse: what is written now must be newer than what is old.
    await asyncio.sleep(1.5)
    late = Sweeper(store, archive, keep_s=0.5, counts=False, clock=lambda: written + 1.5)
    swept = await late.sweep()

    assert 2 == store.looks
    assert (0, 0) == (swept.folders, swept.pieces)
    assert 2 == len(await names(archive))


async def test_keys_that_escape_one_look_are_seen_by_the_next(archive: ObjectArchive) -> None:
    """Slots of a cluster move while somebody looks."""

    class Moving(MemoryStore):
        looks = 0

        async def census(self) -> AsyncGenerator[Sequence[Counted], None]:
            self.looks += 1
            async for some in super().census():
                yield [one for one in some if self.looks > 1 or one.key != GONE]

    store = Moving()
    for key in (THERE, GONE):
        await say(Stage(store, None, None), key, "hello")  # type: ignore[arg-type]  # not used
    await fill(archive, GONE)
    swept = await sweeper(store, archive).sweep()

    assert (0, 2) == (swept.pieces, len(await names(archive)))


async def test_a_store_that_came_back_empty_does_not_empty_its_archive(archive: ObjectArchive) -> None:
    """Unless somebody says that this is right."""
    await fill(archive, GONE, THERE)
    refused = await sweeper(MemoryStore(), archive).sweep()
    left = await names(archive)
    sure = await sweeper(MemoryStore(), archive).sweep(even_if_empty=True)

    assert (2, 0, 0, 4) == (refused.refused, refused.folders, refused.pieces, len(left))
    assert (0, 2, 4) == (sure.refused, sure.folders, sure.pieces)
    assert [] == await names(archive)


async def test_a_dry_run_only_says_what_would_go(archive: ObjectArchive) -> None:
    """And takes nothing."""
    store = await store_with(THERE)
    await fill(archive, GONE, THERE)
    swept = await sweeper(store, archive).sweep(removes=False)

    assert (1, 0) == (swept.folders, swept.pieces)
    assert 4 == len(await names(archive))


async def test_one_process_sweeps_now_and_then(archive: ObjectArchive) -> None:
    """The others leave it alone; what goes wrong is told, and tried again when it is due again."""

    class Failing(MemoryStore):
        fails = True

        async def recounted(self, totals: object) -> None:
            if self.fails:
                self.fails = False
                raise ValueError("a mistake")

    store = Failing()
    await say(Stage(store, None, None), THERE, "hello")  # type: ignore[arg-type]  # not used
    await fill(archive, GONE, THERE)
    came, over = list[Swept | Exception](), asyncio.Event()

    def note(one: Swept | Exception) -> None:
        came.append(one)
        if len(came) == 3:
            over.set()

    tasks = [asyncio.create_task(sweeper(store, archive).run(0.2, note)) for _ in range(4)]
    begun_at = time.monotonic()
    await asyncio.wait_for(over.wait(), 20)
    took_s = time.monotonic() - begun_at
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert took_s > 0.55  # one at the beginning, and two more when they were due
    assert isinstance(came[0], ValueError)
    assert [2, 0] == [one.pieces for one in came[1:3] if isinstance(one, Swept)]
    assert 2 == len(await names(archive))


async def test_an_archive_of_any_size_is_swept_some_at_a_time(
    archive: ObjectArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held in memory at once is bounded."""
    monkeypatch.setattr("history.sweeper._FOLDERS_AT_ONCE", 3)
    gone = [ConversationKey("t", f"gone {number}") for number in range(8)]
    there = [ConversationKey("t", f"there {number}") for number in range(5)]
    store = await store_with(*there)
    await fill(archive, *gone, *there, pieces=1)
    swept = await sweeper(store, archive).sweep()

    assert (8, 8) == (swept.folders, swept.pieces)
    assert 5 == len(await names(archive))


async def test_without_a_time_to_keep_nothing_goes(archive: ObjectArchive) -> None:
    """The default: the archive is kept for ever."""
    await fill(archive, GONE)
    keeper = Sweeper(await store_with(THERE), archive, keep_s=0, counts=False, clock=time.time)
    await keeper.sweep()

    assert not keeper.is_needed
    assert 2 == len(await names(archive))


async def test_an_archive_that_does_not_answer_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a bucket that is not there."""
    with running_s3(tmp_path) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        archive = ObjectArchive("s3://bucket/dialogues")
        with pytest.raises(StoreUnavailable, match="archive"):
            await sweeper(await store_with(THERE), archive).sweep()


async def test_what_is_alive_on_a_real_store_keeps_its_pieces(stage: Stage, tmp_path: Path) -> None:
    """One server, a cluster and a watched master: every id that they know is found."""
    ids = ["a", "{b}", "%7Bb%7D", "\ud800", "x" * 256]
    archive = ObjectArchive(tmp_path.as_uri())
    for conversation_id in ids:
        await say(stage, stage.key(conversation_id), "hello")
    await begun(stage, stage.key("begun only"), "w")
    await fill(archive, *map(stage.key, [*ids, "begun only", "gone"]), pieces=1)
    swept = await Sweeper(
        stage.store, archive, keep_s=KEEP_S, counts=False, clock=lambda: time.time() + 86_400
    ).sweep()

    assert (2, 2) == (swept.folders, swept.pieces)
    for conversation_id in ids:
        assert PIECE == list(await archive.read(stage.key(conversation_id), 0, SEGMENT))
