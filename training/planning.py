"""The door `Recipes`: a job's recipe by name, on this machine's GPUs, over the base models that it knows."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from training.errors import InvalidJob
from training.job import Job
from training.ports import Plan, Prepared
from training.recipes.faults import BadRecipe, RecipeMissing
from training.recipes.place import Folders, Machine
from training.recipes.rendering import RECIPE_FILE, rendered
from training.recipes.shelf import Shelf


class Planner:
    """`models`: base models' folders by name; `shelf`: where recipes are."""

    def __init__(
        self,
        shelf: Shelf,
        models: Mapping[str, Path],
        machine: Machine,
        *,
        port: Callable[[], int] | None = None,
    ) -> None:
        self._shelf = shelf
        self._models = models
        self._machine = machine
        self._port = port or free_port

    async def plan(self, job: Job, prepared: Prepared, *, folder: Path, resume_from: Path | None) -> Plan:
        """See Recipes."""
        return await asyncio.to_thread(self._plan, job, prepared, folder, resume_from)

    def _plan(self, job: Job, prepared: Prepared, folder: Path, resume_from: Path | None) -> Plan:
        known = self._models.get(job.model)
        machine = msgspec.structs.replace(self._machine, master_port=self._port())
        folders = Folders(folder, folder / "output", resume_from, str(known) if known else "")
        try:
            made = rendered(self._shelf.read(job.recipe), job, prepared, folders, machine)
        except (RecipeMissing, BadRecipe) as error:
            raise InvalidJob("recipe", str(error)) from error
        base = Path(str(made.settings["model_name_or_path"]))
        if not (base / "config.json").is_file():
            names = ", ".join(sorted(self._models)) or "none"
            raise InvalidJob(
                "model",
                f"{job.model} is no base model that this worker knows; it knows {names}: start it with "
                f"--models {job.model}=FOLDER",
            )
        return Plan(
            command=made.command,
            environment=made.environment,
            files={RECIPE_FILE: made.yaml, **made.files},
            base=base,
            is_full=made.settings["finetuning_type"] == "full",
            notes=made.notes,
        )


def free_port() -> int:
    """One on which nobody listens now: two runs on one machine need two."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
