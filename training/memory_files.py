"""The file store in a dictionary: for tests and for trying things in one process. It passes the contract."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from training.errors import FileMissing, FileTooLarge, TooManyFiles
from training.ports import Purpose, StoredFile


class MemoryFiles:
    """A FileStore of this process alone. `folder`: where a content goes whose path is asked for."""

    def __init__(self, folder: Path, *, max_bytes: int, max_files: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._under_way: list[str] = []
        self._files: dict[tuple[str, str], tuple[StoredFile, bytes]] = {}

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
        kept = sum(1 for owner, _ in self._files if owner == tenant)
        if kept + self._under_way.count(tenant) >= self._max_files:
            raise TooManyFiles(self._max_files)
        self._under_way.append(tenant)
        try:
            whole = bytearray()
            async for piece in content:
                whole += piece
                if len(whole) > self._max_bytes:
                    raise FileTooLarge(self._max_bytes)
            stored = StoredFile(
                id=f"file-{secrets.token_hex(16)}",
                tenant=tenant,
                filename=filename,
                purpose=purpose() if callable(purpose) else purpose,
                bytes=len(whole),
                sha256=hashlib.sha256(whole).hexdigest(),
                created_at=now,
            )
        finally:
            self._under_way.remove(tenant)
        self._files[tenant, stored.id] = (stored, bytes(whole))
        return stored

    async def get(self, tenant: str, file_id: str) -> StoredFile:
        """See FileStore."""
        return self._file(tenant, file_id)[0]

    async def list(self, tenant: str) -> tuple[StoredFile, ...]:
        """See FileStore."""
        mine = [stored for (owner, _), (stored, _) in self._files.items() if owner == tenant]
        return tuple(sorted(mine, key=lambda one: (one.created_at, one.id), reverse=True))

    async def delete(self, tenant: str, file_id: str) -> None:
        """See FileStore."""
        self._file(tenant, file_id)
        del self._files[tenant, file_id]

    async def path(self, tenant: str, file_id: str) -> Path:
        """See FileStore."""
        path = self._folder / file_id
        await asyncio.to_thread(path.write_bytes, self._file(tenant, file_id)[1])
        return path

    def _file(self, tenant: str, file_id: str) -> tuple[StoredFile, bytes]:
        if (tenant, file_id) not in self._files:
            raise FileMissing(file_id)
        return self._files[tenant, file_id]
