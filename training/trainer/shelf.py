"""The shelf in a folder: `models/<alias>--<version>/`, each with the lineage of what made it."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from training.job import Job
from training.ports import Plan, Prepared
from training.trainer import checkpoints, keeper
from training.trainer.naming import alias_of, name_of, version_of

OUTPUT = "output"
NOTE = "lineage.json"
INTENTION = "published.json"


class FolderShelf:
    """A Shelf. `versions` says what trains here: program to version."""

    def __init__(self, models: Path, *, versions: Callable[[], Mapping[str, str]]) -> None:
        self._models = models
        self._versions = versions

    async def note(self, job: Job, folder: Path, plan: Plan, prepared: Prepared) -> None:
        """See Shelf."""
        await asyncio.to_thread(_note, job, folder, plan, prepared, dict(self._versions()))

    async def publish(self, job: Job, folder: Path) -> str:
        """See Shelf."""
        return await asyncio.to_thread(_published, self._models, job, folder)

    async def withdraw(self, folder: Path, name: str) -> None:
        """See Shelf."""
        await asyncio.to_thread((self._models / name).rename, folder / OUTPUT)
        await asyncio.to_thread((folder / INTENTION).unlink, missing_ok=True)


def _note(job: Job, folder: Path, plan: Plan, prepared: Prepared, versions: Mapping[str, str]) -> None:
    lineage = {
        "schema": 1,
        "job": job.id,
        "model": job.model,
        "recipe": job.recipe,
        "method": job.method,
        "hyperparameters": msgspec.to_builtins(job.hyperparameters),
        "seed": job.seed,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "examples": prepared.examples,
        "dataset_sha256": _dataset_hash(prepared.folder),
        "base": str(plan.base),
        "base_sha256": _base_hashes(plan.base),
        "is_full": plan.is_full,
        "files_sha256": {name: hashlib.sha256(content).hexdigest() for name, content in plan.files.items()},
        "versions": versions,
    }
    keeper.write_whole(folder / NOTE, json.dumps(lineage, indent=1, sort_keys=True).encode())


def _published(models: Path, job: Job, folder: Path) -> str:
    models.mkdir(parents=True, exist_ok=True)
    intention = _read(folder / INTENTION)
    if intention is not None and (models / intention["name"] / NOTE).exists():
        return str(intention["name"])
    output = folder / OUTPUT
    _set_aside(output, folder / "checkpoints")
    _sign(output, folder)
    name = str(intention["name"]) if intention else _reserved(models, alias_of(job))
    keeper.write_whole(folder / INTENTION, json.dumps({"name": name}).encode())
    output.rename(models / name)  # onto the empty folder that reserved the name: at once or not at all
    keeper.sync_folder(models)
    return name


def _set_aside(output: Path, aside: Path) -> None:
    """Checkpoints, with their optimizer's state, are no part of a model that is served."""
    for checkpoint in checkpoints.all_of(output).values():
        aside.mkdir(exist_ok=True)
        checkpoint.rename(aside / checkpoint.name)


def _sign(output: Path, folder: Path) -> None:
    """Write the lineage, with the hash of every file, beside the weights."""
    lineage = _read(folder / NOTE) or {}
    files = sorted(path for path in output.rglob("*") if path.is_file() and path.name != NOTE)
    lineage["sha256"] = {str(path.relative_to(output)): _hash(path) for path in files}
    lineage["published_at"] = time.time()
    keeper.write_whole(output / NOTE, json.dumps(lineage, indent=1, sort_keys=True).encode())


def _reserved(models: Path, alias: str) -> str:
    """The next free version's name, and its empty folder, which nobody else gets."""
    versions = (version_of(entry.name, alias) for entry in models.iterdir())
    version = max((found for found in versions if found is not None), default=0) + 1
    while True:
        with suppress(FileExistsError):
            (models / name_of(alias, version)).mkdir()
            return name_of(alias, version)
        version += 1


def _dataset_hash(folder: Path) -> str:
    """Of its manifest, which names what is in it; without one, of all its files."""
    manifest = folder / "manifest.json"
    if manifest.is_file():
        return _hash(manifest)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)} {_hash(path)}\n".encode())
    return digest.hexdigest()


def _base_hashes(base: Path) -> dict[str, str]:
    """Of what tells one base model from another without reading all of its weights."""
    names = ("config.json", "model.safetensors.index.json", "tokenizer.json")
    hashes = {name: _hash(base / name) for name in names if (base / name).is_file()}
    weights = base / "model.safetensors"
    if weights.is_file():
        hashes["model.safetensors"] = _hash(weights)
    return hashes


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        content: dict[str, Any] = json.loads(path.read_text())
        return content
    return None
