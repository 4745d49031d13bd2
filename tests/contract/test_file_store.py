"""Every file store keeps the same promises: one suite, run over the dictionary and over a real folder."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.errors import BadRequest
from training.disk_files import DiskFiles
from training.errors import FileMissing, FileTooLarge, TooManyFiles
from training.memory_files import MemoryFiles
from training.ports import FileStore, Purpose, StoredFile

Make = Callable[..., FileStore]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Builds a store of the kind under test."""
    kind = MemoryFiles if request.param == "memory" else DiskFiles
    limits = {"max_bytes": 10_000_000, "max_files": 100}
    return lambda **own: kind(tmp_path, **{**limits, **own})


@pytest.fixture
def store(make: Make) -> FileStore:
    """A store that has room."""
    return make()


async def pieces(*content: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    """A content as it comes over the wire, perhaps with a fault behind it."""
    for piece in content:
        yield piece
    if then is not None:
        raise then


async def kept(
    store: FileStore, tenant: str = "acme", *, now: float = 1000.0, text: bytes = b"x"
) -> StoredFile:
    """A file in the store."""
    return await store.create(tenant, "talk.jsonl", "fine-tune", pieces(text), now=now)


async def test_what_came_is_read_back_byte_for_byte(store: FileStore) -> None:
    """Larger than what is written at a time, with its size and its hash."""
    content = [bytes([n]) * 300_000 for n in range(9)]

    stored = await store.create("acme", "t alk ✓.jsonl", "evals", pieces(*content), now=1732420000.5)

    whole = b"".join(content)
    assert whole == (await store.path("acme", stored.id)).read_bytes()
    assert stored == await store.get("acme", stored.id)
    assert ("acme", "t alk ✓.jsonl", "evals", 1732420000.5) == (
        *(stored.tenant, stored.filename, stored.purpose, stored.created_at),
    )
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (stored.bytes, stored.sha256)


async def test_no_tenant_reaches_anothers_file(store: FileStore) -> None:
    """Not even by its id."""
    stored = await kept(store, "acme")

    for call in (store.get, store.path, store.delete):
        with pytest.raises(FileMissing) as caught:
            await call("umbrella", stored.id)
        assert caught.value.file_id == stored.id
    assert () == await store.list("umbrella")
    assert (stored,) == await store.list("acme")


@pytest.mark.parametrize(
    "wrong", ["", "..", "file-1", "../acme/file-" + "0" * 32, "file-" + "0" * 32, ".lock"]
)
async def test_an_id_that_is_none_is_missing(store: FileStore, wrong: str) -> None:
    """Whatever it would mean as a path."""
    await kept(store)

    for call in (store.get, store.path, store.delete):
        with pytest.raises(FileMissing):
            await call("acme", wrong)


async def test_a_deleted_file_is_gone(store: FileStore) -> None:
    """Once, and it cannot be deleted again."""
    stored, other = await kept(store), await kept(store)

    await store.delete("acme", stored.id)

    assert (other,) == await store.list("acme")
    for call in (store.get, store.path, store.delete):
        with pytest.raises(FileMissing):
            await call("acme", stored.id)


async def test_files_are_listed_newest_first(store: FileStore) -> None:
    """Those of one moment in a fixed order too."""
    files = [await kept(store, now=1000.0 + n // 2) for n in range(6)]

    assert tuple(sorted(files, key=lambda one: (one.created_at, one.id), reverse=True)) == await store.list(
        "acme"
    )


async def test_a_content_over_the_limit_leaves_nothing(make: Make, tmp_path: Path) -> None:
    """The limit itself is allowed."""
    store = make(max_bytes=1000)

    with pytest.raises(FileTooLarge) as caught:
        await store.create("acme", "a", "fine-tune", pieces(b"x" * 900, b"x" * 101), now=1.0)

    assert caught.value.limit == 1000
    assert () == await store.list("acme")
    assert [] == left_in(tmp_path)
    assert (await kept(store, text=b"x" * 1000)).bytes == 1000


async def test_a_content_that_breaks_off_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    """Nor does a purpose that is none, which is told behind the content."""

    def no_purpose() -> Purpose:
        raise BadRequest("purpose")

    for content, purpose in (
        (pieces(b"x" * 3_000_000, then=BadRequest("cut")), "fine-tune"),
        (pieces(b"x"), no_purpose),
    ):
        with pytest.raises(BadRequest):
            await store.create("acme", "a", purpose, content, now=1.0)  # type: ignore[arg-type]

    assert () == await store.list("acme")
    assert [] == left_in(tmp_path)


async def test_an_upload_that_is_cancelled_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    """As when a client leaves in the middle of it."""
    began = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            began.set()
            yield b"x" * 100_000
            await asyncio.sleep(0)

    upload = asyncio.create_task(store.create("acme", "a", "fine-tune", endless(), now=1.0))
    await began.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert () == await store.list("acme")
    assert [] == left_in(tmp_path)


async def test_a_purpose_may_be_told_behind_the_content(store: FileStore) -> None:
    """As forms may do."""
    told: list[Purpose] = []

    async def content() -> AsyncIterator[bytes]:
        yield b"x"
        told.append("evals")

    stored = await store.create("acme", "a", lambda: told[0], content(), now=1.0)

    assert stored.purpose == "evals"


async def test_a_tenant_has_so_many_files_and_no_more(make: Make) -> None:
    """Those under way count; another tenant has its own; a deleted one makes room."""
    store = make(max_files=3)
    first = await kept(store)
    held = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await held.wait()

    uploads = [asyncio.create_task(store.create("acme", "a", "fine-tune", slow(), now=1.0)) for _ in range(5)]
    await asyncio.wait(uploads, timeout=5, return_when=asyncio.FIRST_EXCEPTION)
    await kept(store, "umbrella")
    held.set()
    outcomes = await asyncio.gather(*uploads, return_exceptions=True)

    assert [TooManyFiles] * 3 == [type(one) for one in outcomes if isinstance(one, Exception)]
    assert len(await store.list("acme")) == 3
    await store.delete("acme", first.id)
    await kept(store)


def left_in(folder: Path) -> list[str]:
    """Names of what lies in the store's folders, but for the lock."""
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
