"""Datasets on the disk: written whole or not at all, read back, and looked through for a user's dialogues."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from training.datasets.manifest import (
    MANIFEST,
    SOURCES,
    FileFacts,
    Manifest,
    Source,
    dataset_id,
)
from training.datasets.rows import FILES, INFO, info
from training.datasets.rules import Form
from training.errors import BadDataset, FileMissing
from training.exported import is_dataset_id
from training.tenant_name import tenant_name

_BUFFER = 1024 * 1024


class RowFile:
    """A file that is written once, from its beginning, and hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=_BUFFER)
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        self.rows = 0

    def write(self, row: bytes) -> None:
        """One row, with its line's end."""
        self._file.write(row)
        self._sha256.update(row)
        self.bytes += len(row)
        self.rows += 1

    def close(self) -> FileFacts:
        """It is whole and on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileFacts(self._sha256.hexdigest(), self.bytes, self.rows)

    def drop(self) -> None:
        """Nobody wants it any more."""
        self._file.close()


class DatasetFolder:
    """The files of one dataset, under a hidden name until `finish`. Left early, nothing stays."""

    def __init__(self, parent: Path, form: Form) -> None:
        """`parent`: where the dataset's own folder will be, which its contents name."""
        self._parent = parent
        self._form: Form = form
        self._folder = parent / f".making-{os.getpid()}-{os.urandom(4).hex()}"
        self._files: dict[str, RowFile] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.drop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def file(self, name: str) -> RowFile:
        """The file of this name, begun when it is first asked for."""
        found = self._files.get(name)
        if found is None:
            found = self._files[name] = RowFile(self._folder / name)
        return found

    def close_files(self) -> Mapping[str, FileFacts]:
        """All rows are written; what the files are. Writes dataset_info.json for those there are."""
        facts = {name: file.close() for name, file in self._files.items()}
        self._files.clear()
        names = [name for name, file in FILES.items() if file in facts]
        content = info(names, self._form)
        (self._folder / INFO).write_bytes(content)
        facts[INFO] = FileFacts(hashlib.sha256(content).hexdigest(), len(content), 0)
        return facts

    def finish(self, manifest: Manifest) -> Path:
        """Give the dataset its name; the same one again replaces nothing. Returns its folder."""
        named = msgspec.structs.replace(manifest, id=dataset_id(manifest))
        (self._folder / MANIFEST).write_bytes(
            msgspec.json.format(msgspec.json.encode(named), indent=2) + b"\n"
        )
        final = self._parent / named.id
        if not final.exists():
            self._folder.rename(final)
        return final


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a dataset's folder. Raises `FileMissing`, and `BadDataset` for one that cannot be
    read.
    """
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise FileMissing(folder.name) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDataset((f"{folder.name}: its manifest cannot be read: {error}",)) from error


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raise `BadDataset` unless every file is what the manifest says."""
    wrong = []
    for name, facts in manifest.files.items():
        try:
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            wrong.append(f"{folder.name}: {name} cannot be read: {error.strerror}")
            continue
        if digest != facts.sha256:
            wrong.append(f"{folder.name}: {name} is not what was exported; export it again")
    if wrong:
        raise BadDataset(tuple(wrong))


class Held(msgspec.Struct, frozen=True):
    """A dataset that has examples of a user, and which."""

    dataset: str
    sources: tuple[Source, ...]


def datasets_of_user(datasets: Path, tenant: str, user: str) -> Iterator[Held]:
    """The datasets in this folder that a user's dialogues are in, by their manifests; for erasure.

    A manifest that cannot be read raises `BadDataset`: nobody may say then that there is nothing.
    """
    owner = tenant_name(tenant)
    for folder in sorted(datasets.iterdir()) if datasets.is_dir() else ():
        if not is_dataset_id(folder.name) or manifest_of(folder).tenant != owner:
            continue
        with (folder / SOURCES).open("rb") as file:
            lines = (msgspec.json.decode(row, type=Source) for row in file)
            found = tuple(one for one in lines if one.user == user)
        if found:
            yield Held(folder.name, found)
