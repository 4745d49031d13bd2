"""The archive behind a store: files and a real S3 server keep the same promises."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest

from history.archive import SEGMENT, ArchiveRule, piece_name
from history.archived_store import with_archive
from history.archivist import Archivist
from history.conversation import ConversationKey
from history.errors import StoreFault
from history.memory_store import MemoryStore
from history.object_archive import ObjectArchive
from history.ports import Begun, Change, ConversationStore
from tests.contract.store_stage import claim, turn
from tests.s3_server import running_s3

KEY = ConversationKey("tenant", "secret-id")
TURNS = 3 * SEGMENT + 20
RULE = ArchiveRule(url="file:///x", behind_turns=10)


@dataclass
class Shelf:
    """An archive, and the folder in which its files are."""

    archive: ObjectArchive
    folder: Path

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture(params=["files", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """Both kinds, empty."""
    if request.param == "files":
        yield Shelf(ObjectArchive(f"{tmp_path.as_uri()}/with%20space"), tmp_path)
        return
    (tmp_path / "bucket").mkdir()
    with running_s3(tmp_path) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield Shelf(ObjectArchive("s3://bucket/dialogues"), tmp_path)


async def filled(store: ConversationStore, *, cut: int) -> None:
    """A long dialogue whose window begins at `cut`."""
    begun = await store.begin(KEY, claim("filler"))
    assert isinstance(begun, Begun)
    turns = tuple(turn(f"turn {at}") for at in range(TURNS))
    await store.commit(KEY, begun.lease, Change(keep=0, append=turns, at=1.0, cut=cut, user="u"))
    await store.register(KEY.tenant, "u", KEY)


async def texts(store: ConversationStore, start: int, stop: int) -> list[bytes]:
    return [one.digests[:16].rstrip(b"\0") for one in await store.read(KEY, start, stop)]


def expected(start: int, stop: int) -> list[bytes]:
    return [turn(f"turn {at}").digests[:16].rstrip(b"\0") for at in range(start, stop)]


async def test_archived_turns_are_read_as_if_they_were_in_the_store(shelf: Shelf) -> None:
    """Any stretch, wherever it lies; the store keeps only what is near the window."""
    plain = MemoryStore()
    store = with_archive(plain, shelf.archive)
    await filled(store, cut=TURNS - 5)

    moved = await Archivist(store, shelf.archive, RULE).tend(KEY)

    conversation = await store.load(KEY)
    assert conversation is not None
    assert (moved, conversation.base) == (3 * SEGMENT, 3 * SEGMENT)
    assert len((await plain.kept(KEY, 0, TURNS))[1]) == TURNS - 3 * SEGMENT
    assert len(shelf.files()) == 3
    for start, stop in [
        (0, TURNS),
        (0, 1),
        (SEGMENT - 1, SEGMENT + 1),
        (100, 101),
        (190, 200),
        (200, 210),
        (5, 5),
    ]:
        assert expected(start, stop) == await texts(store, start, stop)


async def test_names_and_contents_say_nothing_of_ids(shelf: Shelf) -> None:
    """Whoever sees the folder does not see who talks."""
    store = with_archive(MemoryStore(), shelf.archive)
    await filled(store, cut=TURNS - 5)
    await Archivist(store, shelf.archive, RULE).tend(KEY)

    for path in shelf.files():
        assert "secret" not in str(path)
        assert b"secret" not in path.read_bytes()


@pytest.mark.parametrize("keep", [3, SEGMENT, 150, 3 * SEGMENT, 3 * SEGMENT + 3])
async def test_an_edit_among_archived_turns_brings_them_back(shelf: Shelf, keep: int) -> None:
    """The new branch goes on from there, the old one is kept whole, and later pieces replace the old ones."""
    store = with_archive(MemoryStore(), shelf.archive)
    await filled(store, cut=TURNS - 5)
    archivist = Archivist(store, shelf.archive, RULE)
    await archivist.tend(KEY)

    begun = await store.begin(KEY, claim("editor"))
    assert isinstance(begun, Begun)
    change = Change(keep=keep, append=(turn("edited"),), at=2.0, save_branch=True, cut=max(0, keep - 4))
    after = await store.commit(KEY, begun.lease, change)

    assert after.turn_count == keep + 1
    assert [*expected(0, keep), b"edited-0"] == await texts(store, 0, keep + 1)
    left_at, replaced = await store.branch(KEY, 1)
    assert (left_at, len(replaced)) == (keep, TURNS - keep)
    await archivist.tend(KEY)
    assert [*expected(0, keep), b"edited-0"] == await texts(store, 0, keep + 1)


async def test_a_process_that_dies_between_the_two_steps_loses_nothing(shelf: Shelf) -> None:
    """The piece is written and the store still has the turns; the next try writes it again."""
    store = with_archive(MemoryStore(), shelf.archive)
    await filled(store, cut=TURNS - 5)
    await shelf.archive.write(KEY, 0, await store.read(KEY, 0, SEGMENT))

    assert await Archivist(store, shelf.archive, RULE).tend(KEY) == 3 * SEGMENT

    assert expected(0, TURNS) == await texts(store, 0, TURNS)


@pytest.mark.parametrize("whom", ["conversation", "user"])
async def test_erasing_leaves_no_file_behind(shelf: Shelf, whom: str) -> None:
    """Also no piece that was being written when the conversation went."""

    class Slow(MemoryStore):
        async def shed(self, *arguments: object) -> bool:
            await (store.erase(KEY) if whom == "conversation" else store.erase_user(KEY.tenant, "u"))
            return await super().shed(*arguments)  # type: ignore[arg-type]  # passed on as they came

    plain = MemoryStore()
    store = with_archive(plain, shelf.archive)
    await filled(store, cut=TURNS - 5)
    await Archivist(store, shelf.archive, RULE).tend(KEY)
    await (store.erase(KEY) if whom == "conversation" else store.erase_user(KEY.tenant, "u"))
    assert shelf.files() == []

    store = with_archive(Slow(), shelf.archive)
    await filled(store, cut=TURNS - 5)
    assert await Archivist(store, shelf.archive, RULE).tend(KEY) == 0
    assert shelf.files() == []


async def test_a_missing_piece_is_said(shelf: Shelf) -> None:
    """Never a dialogue with a hole in it."""
    store = with_archive(MemoryStore(), shelf.archive)
    await filled(store, cut=TURNS - 5)
    await Archivist(store, shelf.archive, RULE).tend(KEY)
    await obstore.delete_async(shelf.archive._objects, piece_name(KEY, SEGMENT))

    assert expected(0, SEGMENT) == await texts(store, 0, SEGMENT)
    with pytest.raises(StoreFault, match=r"lacks turns 64 to 128|missing"):
        await store.read(KEY, 0, TURNS)


async def test_one_conversation_s_archive_is_not_another_s(shelf: Shelf) -> None:
    """Ids are told apart by tenant, whatever is in them."""
    other = ConversationKey("tenant-2", "secret-id")
    await shelf.archive.write(KEY, 0, [turn(str(at)) for at in range(SEGMENT)])

    await shelf.archive.erase(other)

    assert len(await shelf.archive.read(KEY, 0, SEGMENT)) == SEGMENT
    with pytest.raises(StoreFault):
        await shelf.archive.read(other, 0, 1)


@pytest.mark.parametrize("url", ["nonsense", "s3:", "file:///dev/null/folder", "gopher://x/y"])
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    """In one line, at start."""
    with pytest.raises(ValueError, match="the archive at"):
        ObjectArchive(url)
