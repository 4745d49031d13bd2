"""A recipe for one job on one machine: what LLaMA-Factory is started with, and what it reads."""

import json
from collections.abc import Mapping

import msgspec

from training.errors import InvalidJob
from training.job import Job
from training.ports import Prepared
from training.recipes.batches import BETA, examples_per_step, steps, with_hyperparameters
from training.recipes.case import Case
from training.recipes.checks import checked, warnings
from training.recipes.faults import BadRecipe
from training.recipes.launch_files import accelerate_text, deepspeed_config
from training.recipes.place import Folders, Machine
from training.recipes.recipe import Recipe, Settings, flat
from training.recipes.yaml_lines import written

RECIPE_FILE = "recipe.yaml"
ACCELERATE_FILE = "accelerate.yaml"
LOGGING_STEPS = 10
SEED = 42


class Rendered(msgspec.Struct, frozen=True):
    """What to write into the job's folder, and what to start there."""

    yaml: bytes
    """Of recipe.yaml."""
    files: Mapping[str, bytes]
    """By name, beside recipe.yaml: DeepSpeed's or accelerate's settings."""
    environment: Mapping[str, str]
    """On top of the worker's own, whose PATH needs the trainer's programs: the CLI calls torchrun."""
    command: tuple[str, ...]
    notes: tuple[str, ...]
    steps: int
    """Of the whole run, by the number of examples."""
    settings: Mapping[str, object]
    """What `yaml` says."""


def rendered(recipe: Recipe, job: Job, prepared: Prepared, folders: Folders, machine: Machine) -> Rendered:
    """All that a run needs. Raises BadRecipe with every problem, and InvalidJob for a hyperparameter.

    On every node of a run the same, but for the machine.
    """
    settings = with_hyperparameters(recipe.settings, job.hyperparameters, recipe.launch)
    base_model = folders.base_model or recipe.settings.model.model_name_or_path or job.model
    recipe = msgspec.structs.replace(recipe, settings=settings)
    case = Case(recipe, prepared, machine, job.method, base_model)
    checked(case)
    _checked_paths(recipe, folders, machine)
    values = _values(recipe, job, prepared, folders) | {"model_name_or_path": base_model}
    total = steps(settings.run, examples=prepared.examples, world=recipe.launch.world)
    batch = examples_per_step(settings.run, recipe.launch.world)
    return Rendered(
        yaml=written(values).encode(),
        files=_files(recipe, machine),
        environment=_environment(recipe, machine),
        command=_command(recipe, folders, machine),
        notes=(*recipe.notes, *warnings(case), f"{total} steps of {batch} examples, of {prepared.examples}"),
        steps=total,
        settings=values,
    )


def _values(recipe: Recipe, job: Job, prepared: Prepared, folders: Folders) -> dict[str, object]:
    """The model's line comes first and is filled in by the caller."""
    settings: dict[str, object] = {"model_name_or_path": ""}
    settings |= {"stage": "sft", "do_train": True, "finetuning_type": "lora"}
    settings |= {"logging_steps": LOGGING_STEPS, "plot_loss": True, "seed": SEED}
    if recipe.settings.method.stage == "dpo":
        settings["pref_beta"] = BETA
    if prepared.mask_history and _can_mask(recipe):
        settings["mask_history"] = True
    settings |= flat(recipe.settings)
    settings |= recipe.extra
    if job.seed is not None:
        settings["seed"] = _seed(job.seed)
    settings |= {"dataset_dir": str(prepared.folder), "dataset": prepared.train}
    if prepared.evaluation:
        settings["eval_dataset"] = prepared.evaluation
    settings |= {
        "output_dir": str(folders.output),
        "overwrite_output_dir": False,
        "resume_from_checkpoint": None if folders.checkpoint is None else str(folders.checkpoint),
        "report_to": "none",
    }
    if recipe.launch.deepspeed is not None:
        settings["deepspeed"] = str(folders.job / _deepspeed_file(recipe.launch.deepspeed.stage))
    return settings


def _can_mask(recipe: Recipe) -> bool:
    """Only dialogues have a history, and LLaMA-Factory refuses it beside train_on_prompt."""
    return (recipe.settings.method.stage or "sft") == "sft" and not recipe.settings.data.train_on_prompt


def _seed(seed: int) -> int:
    if not 0 <= seed < 2**32:
        raise InvalidJob("seed", f"must be from 0 to {2**32 - 1}")
    return seed


def _checked_paths(recipe: Recipe, folders: Folders, machine: Machine) -> None:
    """llamafactory-cli cuts its command for torchrun at spaces, and its reader takes ${ for a reference."""
    paths = [folders.job, folders.output, *filter(None, (folders.checkpoint, machine.programs))]
    wrong = [f"{path} must be absolute" for path in paths if not path.is_absolute()]
    wrong += [f"{path} has ${{ in it: use another folder" for path in paths if "${" in str(path)]
    if recipe.launch.by == "torchrun" and len(str(folders.job).split()) != 1:
        wrong.append(f"{folders.job} has a space in it, at which the trainer cuts its command: use another")
    if wrong:
        raise BadRecipe(recipe.name, tuple(wrong))


def _files(recipe: Recipe, machine: Machine) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    if recipe.launch.deepspeed is not None:
        text = json.dumps(deepspeed_config(recipe.launch.deepspeed), indent=2)
        files[_deepspeed_file(recipe.launch.deepspeed.stage)] = text.encode()
    if recipe.launch.by == "accelerate":
        files[ACCELERATE_FILE] = accelerate_text(recipe.launch, recipe.settings.run, machine).encode()
    return files


def _deepspeed_file(stage: int) -> str:
    return f"ds_z{stage}.json"


def _environment(recipe: Recipe, machine: Machine) -> dict[str, str]:
    launch, on_cpu = recipe.launch, _on_cpu(recipe.settings, machine)
    environment = {
        "CUDA_VISIBLE_DEVICES": "" if on_cpu else ",".join(machine.gpus),
        "FORCE_TORCHRUN": str(int(launch.by == "torchrun")),
        "HF_HUB_OFFLINE": str(int(launch.offline)),
    }
    if on_cpu:
        environment["OMP_NUM_THREADS"] = str(max(1, machine.cores // launch.processes))
    else:
        environment["RECORD_VRAM"] = "1"
    if launch.by == "torchrun":
        environment |= {
            "NPROC_PER_NODE": str(launch.processes),
            "NNODES": str(launch.nodes),
            "NODE_RANK": str(machine.node_rank),
            "MASTER_ADDR": machine.master_addr,
            "MASTER_PORT": str(machine.master_port),
        }
    return environment | launch.environment


def _on_cpu(settings: Settings, machine: Machine) -> bool:
    return bool(settings.run.use_cpu) or not machine.gpus


def _command(recipe: Recipe, folders: Folders, machine: Machine) -> tuple[str, ...]:
    recipe_file = str(folders.job / RECIPE_FILE)
    if recipe.launch.by == "accelerate":
        config = str(folders.job / ACCELERATE_FILE)
        program = _program(machine, "accelerate")
        return (program, "launch", "--config_file", config, "-m", "llamafactory.launcher", recipe_file)
    return (_program(machine, "llamafactory-cli"), "train", recipe_file)


def _program(machine: Machine, name: str) -> str:
    return name if machine.programs is None else str(machine.programs / name)
