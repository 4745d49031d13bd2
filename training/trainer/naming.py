"""What a trained model is called: `<alias>--<version>`. Pure."""

import re

from training.job import Job

MOST_CHARS = 64


def alias_of(job: Job) -> str:
    """The job's suffix or else its model's name, as one part of a path, never with `--` in it."""
    return safe(job.suffix) or safe(job.model.rstrip("/").rpartition("/")[2]) or "model"


def safe(text: str) -> str:
    """Letters, digits, `.`, `_` and single `-`, none of them but letters and digits at an end."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", text)
    return plain.strip("-._")[:MOST_CHARS].rstrip("-._")


def name_of(alias: str, version: int) -> str:
    """Versions count from 1."""
    return f"{alias}--{version}"


def version_of(name: str, alias: str) -> int | None:
    """The version in a name of this alias; None for any other name."""
    before, _, version = name.rpartition("--")
    return int(version) if before == alias and re.fullmatch(r"[0-9]{1,12}", version) else None
