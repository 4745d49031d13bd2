"""The file store on a disk that gateway and workers share (ADR 0019).

    files/<tenant's hash>/<file id>          the content, as it came
    files/<tenant's hash>/<file id>.json     what it is; a file exists if and only if this does
    files/<tenant's hash>/<file id>.part     a content under way
    files/<tenant's hash>/.lock              held by who begins an upload: contents under way count as files

Content first, then what it is, each synced before it gets its name, and the folder after: what was
acknowledged survives a power cut, and a process that dies leaves nothing that a list would show. What is left
of it goes with a later upload.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from training.errors import FileMissing, FileTooLarge, StoreUnavailable, TooManyFiles
from training.ports import Purpose, StoredFile
from training.tenant_name import tenant_name

ABANDONED_AFTER_S = 86_400.0
"""So long nothing was written to a content under way: its process is gone."""
_ID = re.compile(r"file-[0-9a-f]{32}")
_WRITE_BYTES = 1024 * 1024


class DiskFiles:
    """A FileStore under `folder`, which the first file makes. Limits: bytes, and files per tenant."""

    def __init__(self, folder: Path, *, max_bytes: int, max_files: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_files = max_files

    async def create(
        self,
        tenant: str,
        filename: str,
        purpose: Purpose | Callable[[], Purpose],
        content: AsyncIterator[bytes],
        *,
        now: float,
    ) -> StoredFile:
        """See FileStore."""
        upload = await asyncio.to_thread(self._begin, tenant)
        try:
            async for piece in content:
                if upload.take(piece) > self._max_bytes:
                    raise FileTooLarge(self._max_bytes)
                if upload.is_worth_writing:
                    await asyncio.to_thread(upload.write)
            await asyncio.to_thread(upload.write)
            told = purpose() if callable(purpose) else purpose
            stored = StoredFile(
                id=upload.place.name,
                tenant=tenant,
                filename=filename,
                purpose=told,
                bytes=upload.bytes,
                sha256=upload.digest.hexdigest(),
                created_at=now,
            )
            await asyncio.to_thread(upload.keep, msgspec.json.encode(stored))
        finally:
            await asyncio.shield(asyncio.to_thread(upload.end))
        return stored

    async def get(self, tenant: str, file_id: str) -> StoredFile:
        """See FileStore."""
        return await asyncio.to_thread(self._read, self._place(tenant, file_id))

    async def list(self, tenant: str) -> tuple[StoredFile, ...]:
        """See FileStore."""
        return await asyncio.to_thread(self._all, self._folder / tenant_name(tenant))

    async def delete(self, tenant: str, file_id: str) -> None:
        """See FileStore."""
        await asyncio.to_thread(self._delete, self._place(tenant, file_id))

    async def path(self, tenant: str, file_id: str) -> Path:
        """See FileStore."""
        place = self._place(tenant, file_id)
        await asyncio.to_thread(self._read, place)
        return place

    def _place(self, tenant: str, file_id: str) -> Path:
        if not _ID.fullmatch(file_id):
            raise FileMissing(file_id)
        return self._folder / tenant_name(tenant) / file_id

    def _begin(self, tenant: str) -> "_Upload":
        with _translated():
            folder = self._folder / tenant_name(tenant)
            _make(folder)
            with _locked(folder):
                _clear(folder, before=time.time() - ABANDONED_AFTER_S)
                if sum(map(_counts, _names(folder))) >= self._max_files:
                    raise TooManyFiles(self._max_files)
                return _Upload(folder / f"file-{secrets.token_hex(16)}")

    def _read(self, place: Path) -> StoredFile:
        with _translated():
            try:
                return msgspec.json.decode(_facts(place).read_bytes(), type=StoredFile)
            except FileNotFoundError:
                raise FileMissing(place.name) from None
            except msgspec.DecodeError as error:
                raise StoreUnavailable(
                    f"what is kept of file {place.name} cannot be read: {error}"
                ) from error

    def _all(self, folder: Path) -> tuple[StoredFile, ...]:
        with _translated():
            names = _names(folder) if folder.is_dir() else ()
        found = []
        for name in names:
            file_id, dot, kind = name.partition(".")
            if dot and kind == "json" and _ID.fullmatch(file_id):
                try:
                    found.append(self._read(folder / file_id))
                except FileMissing:
                    continue  # deleted since the names were read
        return tuple(sorted(found, key=lambda one: (one.created_at, one.id), reverse=True))

    def _delete(self, place: Path) -> None:
        with _translated():
            try:
                _facts(place).unlink()
            except FileNotFoundError:
                raise FileMissing(place.name) from None
            place.unlink(missing_ok=True)
            _sync(place.parent)


class _Upload:
    """A content on its way to the disk.

    A client that leaves cancels who waits for a thread, not the thread: what writes and what ends go one
    behind the other, and behind the end nothing is written.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bytes = 0
        self.digest = hashlib.sha256()
        self._waiting = bytearray()
        self._part = place.with_name(f"{place.name}.part")
        self._file: IO[bytes] = self._part.open("xb")
        self._alone = threading.Lock()

    @property
    def is_worth_writing(self) -> bool:
        return len(self._waiting) >= _WRITE_BYTES

    def take(self, piece: bytes) -> int:
        """How many bytes there are with this piece."""
        self._waiting += piece
        self.bytes += len(piece)
        return self.bytes

    def write(self) -> None:
        with self._alone, _translated():
            if self._file.closed:
                return
            self._file.write(self._waiting)
            self.digest.update(self._waiting)
            self._waiting = bytearray()

    def keep(self, facts: bytes) -> None:
        """Give it its name: from then on it is there."""
        with self._alone, _translated():
            if self._file.closed:
                return
            self._file.flush()
            os.fsync(self._file.fileno())
            self._part.rename(self.place)
            written = self.place.with_name(f"{self.place.name}.facts.part")
            with written.open("xb") as file:
                file.write(facts)
                file.flush()
                os.fsync(file.fileno())
            _sync(self.place.parent)
            written.rename(_facts(self.place))
            _sync(self.place.parent)

    def end(self) -> None:
        """Close it; what was not kept is gone."""
        with self._alone, _translated():
            self._file.close()
            if not _facts(self.place).exists():
                for left in (self._part, self.place, self.place.with_name(f"{self.place.name}.facts.part")):
                    left.unlink(missing_ok=True)


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(path.name for path in folder.iterdir())


def _facts(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")


def _counts(name: str) -> bool:
    file_id, _, kind = name.partition(".")
    return kind in ("json", "part") and _ID.fullmatch(file_id) is not None


def _clear(folder: Path, *, before: float) -> None:
    """Remove what a process left behind that died: contents that nothing says anything of."""
    names = frozenset(_names(folder))
    for name in names:
        file_id, _, kind = name.partition(".")
        is_left = _ID.fullmatch(file_id) and kind != "json" and f"{file_id}.json" not in names
        if is_left and (folder / name).stat().st_mtime < before:
            (folder / name).unlink()


def _make(folder: Path) -> None:
    """The folder, readable by nobody else, and kept by those above it."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync(folder.parent)
        _sync(folder.parent.parent)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among all processes that share the folder."""
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _translated() -> Iterator[None]:
    """What the disk says, without the names in it."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"the folder of files refuses: {error.strerror or error}") from error
