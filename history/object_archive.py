"""The archive in files or in an object store (S3 and what speaks like it)."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from history.archive import SEGMENT, folder_of, is_piece, pack, piece_name, starts, unpack
from history.conversation import ConversationKey, Turn
from history.errors import StoreFault, StoreUnavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta

_READS_AT_ONCE = 8
_DELETES_AT_ONCE = 1000


class ObjectArchive:
    """An `Archive` at a URL. Credentials of an object store come from the environment, as usual for it.

    Raises `ValueError` for a URL that is none or a folder that cannot be made.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        try:
            if self._folder is None:
                self._objects = from_url(url)
            else:
                self._objects = LocalStore(self._folder, mkdir=True)
        except (BaseError, OSError, ValueError) as error:
            raise ValueError(f"the archive at {url} cannot be used: {error}") from error

    async def write(self, key: ConversationKey, start: int, turns: Sequence[Turn]) -> None:
        """Keep one piece, for good before this returns. Writing it again changes nothing."""
        name = piece_name(key, start)
        try:
            await obstore.put_async(self._objects, name, await asyncio.to_thread(pack, turns))
            if self._folder is not None:
                await asyncio.to_thread(_sync, self._folder / name)
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"the archive did not take a piece: {type(error).__name__}") from error

    async def read(self, key: ConversationKey, start: int, stop: int) -> tuple[Turn, ...]:
        """Turns `start` to `stop`. Raises `StoreFault` if a piece is missing."""
        gate = asyncio.Semaphore(_READS_AT_ONCE)

        async def piece(at: int) -> tuple[Turn, ...]:
            async with gate:
                return await self._piece(key, at)

        try:
            async with asyncio.TaskGroup() as tasks:
                pieces = [tasks.create_task(piece(at)) for at in starts(start, stop)]
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from faults
        turns = [turn for one in pieces for turn in one.result()]
        first = start - start % SEGMENT
        return tuple(turns[start - first : stop - first])

    async def erase(self, key: ConversationKey) -> None:
        """Delete all pieces of a conversation; none is no error."""
        try:
            async for found in obstore.list(self._objects, prefix=folder_of(key)):
                await obstore.delete_async(self._objects, [one["path"] for one in found])
        except NotFoundError:
            return
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"the archive did not erase: {type(error).__name__}") from error

    async def folders(self, before: float) -> AsyncGenerator[str, None]:
        """The folders of conversations that seem to have nothing newer than `before`, Unix seconds."""
        folder, newest = "", 0.0
        try:
            async for found in obstore.list(self._objects):
                for one in filter(_is_ours, found):
                    if (its := one["path"].rpartition("/")[0]) != folder:
                        if folder and newest < before:
                            yield folder
                        folder, newest = its, 0.0
                    newest = max(newest, one["last_modified"].timestamp())
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"the archive does not say what it has: {type(error).__name__}") from error
        if folder and newest < before:
            yield folder

    async def clear(self, folder: str, before: float) -> int:
        """Delete a folder, unless something in it was written since; how many pieces went."""
        try:
            pieces = [
                one
                async for found in obstore.list(self._objects, prefix=folder)
                for one in filter(_is_ours, found)
            ]
            if any(one["last_modified"].timestamp() >= before for one in pieces):
                return 0
            for at in range(0, len(pieces), _DELETES_AT_ONCE):
                names = [one["path"] for one in pieces[at : at + _DELETES_AT_ONCE]]
                await obstore.delete_async(self._objects, names)
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"the archive did not erase: {type(error).__name__}") from error
        return len(pieces)

    async def _piece(self, key: ConversationKey, start: int) -> tuple[Turn, ...]:
        try:
            got = await obstore.get_async(self._objects, piece_name(key, start))
            data = await got.bytes_async()
        except (NotFoundError, FileNotFoundError) as error:
            raise StoreFault(
                f"the archive lacks turns {start} to {start + SEGMENT} of a conversation"
            ) from error
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"the archive does not answer: {type(error).__name__}") from error
        return await asyncio.to_thread(unpack, bytes(data))


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
