"""Finds LLaMA-Factory, which lives in an environment of its own: its pins would fight with ours.

It is only ever started as a program, never imported.
"""

import os
from collections.abc import Mapping
from pathlib import Path

INSTALL_COMMAND = "make llamafactory"


def default_folder(environment: Mapping[str, str], home: Path) -> Path:
    """Where INSTALL_COMMAND puts the environment: the user's cache folder."""
    cache = environment.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else home / ".cache") / "friendo" / "llamafactory"


class LlamaFactory:
    """A Trainer: the virtual environment in `folder`. `installed_in` is where INSTALL_COMMAND puts one."""

    def __init__(self, folder: Path, *, installed_in: Path) -> None:
        self._program = folder / "bin" / "llamafactory-cli"
        self._elsewhere = None if folder == installed_in else installed_in

    def cli(self) -> Path | None:
        """See Trainer. Asked anew for every job: it may be installed while the worker runs."""
        present = self._program.is_file() and os.access(self._program, os.X_OK)
        return self._program if present else None

    def missing(self) -> str:
        """See Trainer."""
        told = f"LLaMA-Factory is not installed: there is no program {self._program}."
        remedy = f" Install it with `{INSTALL_COMMAND}` and submit the job again."
        if self._elsewhere is None:
            return told + remedy
        return f"{told}{remedy} It goes into {self._elsewhere}: start the worker without --llamafactory then."
