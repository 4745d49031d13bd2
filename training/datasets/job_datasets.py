"""The door `training.ports.Datasets`, over uploaded files and exported datasets."""

import asyncio
from pathlib import Path

from training.datasets.folder import manifest_of
from training.datasets.preparing import Upload, prepare_exported, prepare_upload
from training.datasets.rules import DatasetRules
from training.errors import BadDataset, FileMissing
from training.exported import is_dataset_id
from training.job import Job
from training.ports import FileStore, Prepared
from training.tenant_name import tenant_name

UPLOADED = DatasetRules(personal="keep")
"""Of an uploaded file nothing is taken away but what cannot be trained on: it is its owner's choice."""


class JobDatasets:
    """Prepares what jobs name. `datasets`: the folder of exported ones (`training.folder`/datasets)."""

    def __init__(self, files: FileStore, datasets: Path, rules: DatasetRules = UPLOADED) -> None:
        self._files = files
        self._datasets = datasets
        self._rules = rules

    async def prepare(self, job: Job, folder: Path) -> Prepared:
        """See `training.ports.Datasets`. Reading and writing happen in a thread of their own."""
        held = job.validation_file
        if held and is_dataset_id(held):
            raise BadDataset(
                (f"{held} is a dataset, which holds users out by itself; validate by a file, or by none",)
            )
        evaluation = await self._upload(job.tenant, held) if held else None
        if is_dataset_id(job.training_file):
            dataset = self._dataset(job.tenant, job.training_file)
            return await asyncio.to_thread(
                prepare_exported, dataset, evaluation, folder, method=job.method, rules=self._rules
            )
        train = await self._upload(job.tenant, job.training_file)
        return await asyncio.to_thread(
            prepare_upload, train, evaluation, folder, method=job.method, rules=self._rules
        )

    async def _upload(self, tenant: str, file_id: str) -> Upload:
        stored = await self._files.get(tenant, file_id)
        return Upload(await self._files.path(tenant, file_id), stored.filename)

    def _dataset(self, tenant: str, name: str) -> Path:
        """Its folder. Raises `FileMissing`, also for another tenant's."""
        folder = self._datasets / name
        if manifest_of(folder).tenant != tenant_name(tenant):
            raise FileMissing(name)
        return folder
