"""The archive in files or in an object store (S3 and what speaks like it).

Every call runs in a thread of the archive's own. obstore has asynchronous calls as well, but their threads
may still want the interpreter when it ends, and a process that has just used them then dies by SIGABRT.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from history.archive import SEGMENT, folder_of, is_piece, pack, piece_name, starts, unpack
from history.conversation import ConversationKey, Turn
from history.errors import StoreFault, StoreUnavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta

_CALLS_AT_ONCE = 8
_DELETES_AT_ONCE = 1000
_RETRIES_END = timedelta(seconds=20)
"""How long a request to an object store is tried again; one try has half a minute."""

_Got = TypeVar("_Got")


class ObjectArchive:
    """An `Archive` at a URL. Credentials of an object store come from the environment, as usual for it.

    Raises `ValueError` for a URL that is none or a folder that cannot be made.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._threads = ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="archive")
        try:
            if self._folder is None:
                self._objects = from_url(url, retry_config={"retry_timeout": _RETRIES_END})
            else:
                self._objects = LocalStore(self._folder, mkdir=True)
        except (BaseError, OSError, ValueError) as error:
            raise ValueError(f"the archive at {url} cannot be used: {error}") from error

    async def write(self, key: ConversationKey, start: int, turns: Sequence[Turn]) -> None:
        """Keep one piece, for good before this returns. Writing it again changes nothing."""
        name = piece_name(key, start)

        def write() -> None:
            obstore.put(self._objects, name, pack(turns))
            if self._folder is not None:
                _sync(self._folder / name)

        await self._in_thread(write, "did not take a piece")

    async def read(self, key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        """Turns `start` to `stop`. Raises `StoreFault` if a piece is missing."""
        try:
            async with asyncio.TaskGroup() as tasks:
                pieces = [tasks.create_task(self._piece(key, at)) for at in starts(start, stop)]
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from faults
        turns = [turn for one in pieces for turn in one.result()]
        first = start - start % SEGMENT
        return tuple(turns[start - first : stop - first])

    async def erase(self, key: ConversationKey) -> None:
        """Delete all pieces of a conversation; none is no error."""

        def erase() -> None:
            self._delete(self._listed(folder_of(key)))

        await self._in_thread(erase, "did not erase")

    async def folders(self, before: float) -> AsyncGenerator[str, None]:
        """The folders of conversations that seem to have nothing newer than `before`, Unix seconds."""
        listed = self._listed(None)
        folder, newest = "", 0.0
        while found := await self._in_thread(lambda: next(listed, ()), "does not say what it has"):
            for one in filter(_is_ours, found):
                if (its := one["path"].rpartition("/")[0]) != folder:
                    if folder and newest < before:
                        yield folder
                    folder, newest = its, 0.0
                newest = max(newest, one["last_modified"].timestamp())
        if folder and newest < before:
            yield folder

    async def clear(self, folder: str, before: float) -> int:
        """Delete a folder, unless something in it was written since; how many pieces went."""

        def clear() -> int:
            pieces = [one for found in self._listed(folder) for one in filter(_is_ours, found)]
            if any(one["last_modified"].timestamp() >= before for one in pieces):
                return 0
            self._delete([pieces])
            return len(pieces)

        return await self._in_thread(clear, "did not erase")

    async def _piece(self, key: ConversationKey, start: int) -> tuple[Turn, ...]:
        def read() -> tuple[Turn, ...]:
            try:
                data = obstore.get(self._objects, piece_name(key, start)).bytes()
            except (NotFoundError, FileNotFoundError) as error:
                raise StoreFault(
                    f"the archive lacks turns {start} to {start + SEGMENT} of a conversation"
                ) from error
            return unpack(bytes(data))

        return await self._in_thread(read, "does not answer")

    def _listed(self, folder: str | None) -> "Iterator[Sequence[ObjectMeta]]":
        """What there is, some at a time; a folder that is not there is empty."""
        try:
            for found in obstore.list(self._objects, prefix=folder):
                if found:
                    yield found
        except NotFoundError:
            if folder is None:
                raise

    def _delete(self, listed: "Iterator[Sequence[ObjectMeta]] | Sequence[Sequence[ObjectMeta]]") -> None:
        for found in listed:
            names = [one["path"] for one in found]
            for at in range(0, len(names), _DELETES_AT_ONCE):
                obstore.delete(self._objects, names[at : at + _DELETES_AT_ONCE])

    async def _in_thread(self, call: Callable[[], _Got], what: str) -> _Got:
        """What the call returns. Raises `StoreUnavailable` if the archive did not do it."""
        with _translated(what):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise StoreUnavailable(f"the archive {what}: {type(error).__name__}") from error


def _is_ours(found: "ObjectMeta") -> bool:
    return is_piece(found["path"])


def _sync(path: Path) -> None:
    """Make a file and its folder's entry survive a power cut: renaming alone does not."""
    for one in (path, path.parent, path.parent.parent):
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
