"""Exported datasets as those who name them see them: whether there is one, and whose it is."""

import re
from pathlib import Path

import msgspec

from training.errors import FileMissing, StoreUnavailable
from training.tenant_name import tenant_name

_ID = re.compile(r"ds-[A-Za-z0-9_-]{1,64}")


class _Manifest(msgspec.Struct):
    tenant: str
    """As `tenant_name` writes it."""


def is_dataset_id(name: str) -> bool:
    """Whether a training file's id names a dataset and not a file."""
    return _ID.fullmatch(name) is not None


def find_dataset(datasets: Path, tenant: str, dataset_id: str) -> Path:
    """A tenant's dataset among `datasets`. Raises FileMissing, for another tenant's as for none."""
    folder = datasets / dataset_id
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=_Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise FileMissing(dataset_id) from None
    except (OSError, msgspec.DecodeError) as error:
        raise StoreUnavailable(f"the manifest of {dataset_id} cannot be read: {error}") from error
    if manifest.tenant != tenant_name(tenant):
        raise FileMissing(dataset_id)
    return folder
