"""What a run is started with: YAML that says what the recipe says, environment, command, files."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.recipe_settings import few_settings
from training.errors import InvalidJob
from training.job import Hyperparameters, Job, Method
from training.ports import Prepared
from training.recipes.batches import steps, with_hyperparameters
from training.recipes.case import Case
from training.recipes.checks import problems
from training.recipes.faults import BadRecipe
from training.recipes.place import Folders, Machine
from training.recipes.recipe import Launch, Recipe, Settings, flat, read_recipe, settings_from
from training.recipes.rendering import Rendered, rendered
from training.recipes.run_settings import RunSettings
from training.recipes.shelf import Shelf
from training.recipes.yaml_lines import parsed

SHIPPED = Shelf([Path(__file__).parents[2] / "config" / "recipes"])
DATA = Prepared(Path("/d"), "train", "held", 1000, 100)
FOLDERS = Folders(Path("/jobs/1"), Path("/jobs/1/output"))
GPU = Machine(gpus=("3",), master_port=29511)
WHOLE = {"model_name_or_path": "/m", "template": "qwen"}


def job(method: Method = "supervised", seed: int | None = None, **wanted: float) -> Job:
    return Job(
        id="j1",
        tenant="t",
        model="qwen",
        recipe="mine",
        created_at=0.0,
        updated_at=0.0,
        method=method,
        seed=seed,
        hyperparameters=msgspec.convert(wanted, Hyperparameters),
    )


def shipped(name: str, machine: Machine, *, folders: Folders = FOLDERS) -> Rendered:
    recipe = SHIPPED.read(name)
    method: Method = "dpo" if recipe.settings.method.stage == "dpo" else "supervised"
    return rendered(recipe, job(method), DATA, folders, machine)


@given(few_settings(4))
def test_rendered_yaml_says_what_the_recipe_says(values: dict[str, object]) -> None:
    """Any settings that pass the checks are there unchanged, and read back as what was rendered."""
    values = {key: value for key, value in values.items() if key not in {"val_size", "template"}}
    values = {"model_name_or_path": "/m", **values, "template": "qwen"}
    launch = Launch(resumable=False)
    recipe = Recipe("mine", settings=settings_from(values, name="mine"), launch=launch)
    machine = Machine() if values.get("use_cpu") else GPU
    if problems(Case(recipe, DATA, machine, "supervised")):
        with pytest.raises(BadRecipe):
            rendered(recipe, job(), DATA, FOLDERS, machine)
        return
    found = rendered(recipe, job(), DATA, FOLDERS, machine)

    assert parsed(found.yaml.decode(), name="mine") == found.settings
    assert values.items() <= found.settings.items()


@given(st.fixed_dictionaries({}, optional={"learning_rate": st.floats(1e-9, 1), "seed": st.integers(0, 9)}))
def test_settings_that_always_pass_are_rendered(values: dict[str, object]) -> None:
    """The property above cannot hide behind refusals."""
    recipe = Recipe("mine", settings=settings_from(WHOLE | values, name="mine"))

    assert values.items() <= rendered(recipe, job(), DATA, FOLDERS, GPU).settings.items()


def test_a_job_sets_its_data_its_folders_and_nothing_leaves_the_machine() -> None:
    found = yaml.safe_load(shipped("lora_sft_qwen2_5_7b", GPU).yaml)

    assert {
        "dataset_dir": "/d",
        "dataset": "train",
        "eval_dataset": "held",
        "output_dir": "/jobs/1/output",
        "overwrite_output_dir": False,
        "resume_from_checkpoint": None,
        "report_to": "none",
        "do_train": True,
        "plot_loss": True,
        "seed": 42,
        "logging_steps": 10,
    }.items() <= found.items()


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ({}, True),
        ({"mask_history": False}, False),
        ({"train_on_prompt": True}, None),
        ({"stage": "dpo"}, None),
    ],
)
def test_the_dataset_says_which_answers_count_unless_the_recipe_does(
    settings: dict[str, object], written: bool | None
) -> None:
    recipe = Recipe("mine", settings=settings_from(WHOLE | settings, name="mine"))
    data = msgspec.structs.replace(DATA, mask_history=True)
    method: Method = "dpo" if "stage" in settings else "supervised"

    assert rendered(recipe, job(method), data, FOLDERS, GPU).settings.get("mask_history") is written


def test_a_dataset_without_evaluation_has_no_line_for_it() -> None:
    recipe = Recipe("mine", settings=settings_from(WHOLE, name="mine"))
    nothing_held = msgspec.structs.replace(DATA, evaluation="")

    assert "eval_dataset" not in rendered(recipe, job(), nothing_held, FOLDERS, GPU).settings


def test_a_run_goes_on_from_its_checkpoint() -> None:
    folders = msgspec.structs.replace(FOLDERS, checkpoint=Path("/jobs/1/output/checkpoint-4"))

    found = shipped("tiny_cpu", Machine(), folders=folders).settings

    assert found["resume_from_checkpoint"] == "/jobs/1/output/checkpoint-4"


@pytest.mark.parametrize(
    ("base_model", "recipe_model", "used"), [("/b", "/r", "/b"), ("", "/r", "/r"), ("", None, "qwen")]
)
def test_whose_model_counts(base_model: str, recipe_model: str | None, used: str) -> None:
    """A folder that the worker knows, then the recipe's, then the job's word."""
    values = {"template": "qwen"} | ({"model_name_or_path": recipe_model} if recipe_model else {})
    recipe = Recipe("mine", settings=settings_from(values, name="mine"))
    folders = msgspec.structs.replace(FOLDERS, base_model=base_model)

    assert rendered(recipe, job(), DATA, folders, GPU).settings["model_name_or_path"] == used


def test_torchrun_with_deepspeed_on_several_nodes() -> None:
    machine = Machine(tuple("01234567"), node_rank=1, master_addr="10.0.0.1", master_port=29600)
    found = shipped("multi_node_torchrun", machine)

    assert found.environment == {
        "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
        "FORCE_TORCHRUN": "1",
        "NPROC_PER_NODE": "8",
        "NNODES": "2",
        "NODE_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29600",
        "HF_HUB_OFFLINE": "1",
        "RECORD_VRAM": "1",
        "NCCL_P2P_LEVEL": "NVL",
    }
    assert found.command == ("llamafactory-cli", "train", "/jobs/1/recipe.yaml")
    assert found.settings["deepspeed"] == "/jobs/1/ds_z3.json"
    assert json.loads(found.files["ds_z3.json"])["zero_optimization"]["stage"] == 3
    assert "64 examples" in found.notes[-1]


def test_offload_is_written_for_deepspeed() -> None:
    files = shipped("full_sft_zero3_32b", Machine(tuple("01234567"))).files
    zero = json.loads(files["ds_z3.json"])["zero_optimization"]

    assert zero["offload_optimizer"]["device"] == "cpu"
    assert "offload_param" not in zero


def test_accelerate_gets_its_own_file_and_command() -> None:
    programs = Path("/venv/bin")
    found = shipped("multi_gpu_accelerate", Machine(tuple("0123"), programs=programs, master_port=29601))
    config = yaml.safe_load(found.files["accelerate.yaml"])

    assert found.command == (
        "/venv/bin/accelerate",
        "launch",
        "--config_file",
        "/jobs/1/accelerate.yaml",
        "-m",
        "llamafactory.launcher",
        "/jobs/1/recipe.yaml",
    )
    assert (config["distributed_type"], config["num_processes"]) == ("MULTI_GPU", 4)
    assert (config["mixed_precision"], config["main_process_port"]) == ("bf16", 29601)
    assert found.environment["FORCE_TORCHRUN"] == "0"
    assert "MASTER_PORT" not in found.environment


def test_the_cpu_sees_no_gpu_and_shares_its_cores() -> None:
    found = shipped("tiny_cpu", Machine(cores=6))

    assert found.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert found.environment["OMP_NUM_THREADS"] == "6"
    assert "RECORD_VRAM" not in found.environment
    assert found.steps == 8


def test_preferences_have_their_beta() -> None:
    assert shipped("dpo_lora", GPU).settings["pref_beta"] == 0.1
    settings = settings_from(WHOLE | {"stage": "dpo"}, name="mine")
    found = rendered(Recipe("mine", settings=settings), job("dpo", beta=0.3), DATA, FOLDERS, GPU)
    assert found.settings["pref_beta"] == 0.3


def test_a_jobs_hyperparameters_count() -> None:
    wanted = job(n_epochs=4, learning_rate_multiplier=2, batch_size=24, seed=7)
    recipe = SHIPPED.read("lora_sft_qwen2_5_7b")

    found = rendered(recipe, wanted, DATA, FOLDERS, GPU).settings

    assert (found["num_train_epochs"], found["learning_rate"], found["seed"]) == (4.0, 0.0002, 7)
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (1, 24)


def test_epochs_of_a_job_count_instead_of_a_recipes_steps() -> None:
    found = rendered(SHIPPED.read("tiny_cpu"), job(n_epochs=2), DATA, FOLDERS, Machine())

    assert "max_steps" not in found.settings
    assert found.steps == 2000


@given(st.integers(1, 200), st.integers(1, 16), st.integers(1, 8))
def test_any_batch_is_divided_exactly_or_refused(batch: int, most: int, world: int) -> None:
    settings = Settings(run=RunSettings(per_device_train_batch_size=most))
    launch = Launch(by="torchrun", processes=world)
    wanted = Hyperparameters(batch_size=batch)
    if batch % world:
        with pytest.raises(InvalidJob, match=f"multiple of {world}"):
            with_hyperparameters(settings, wanted, launch)
        return
    run = with_hyperparameters(settings, wanted, launch).run

    assert run.per_device_train_batch_size is not None
    assert run.gradient_accumulation_steps is not None
    assert run.per_device_train_batch_size <= most
    assert run.per_device_train_batch_size * run.gradient_accumulation_steps * world == batch


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"n_epochs": 0}, "n_epochs"),
        ({"learning_rate_multiplier": -1}, "learning_rate_multiplier"),
        ({"batch_size": 0}, "batch_size"),
        ({"beta": 0.1}, "beta"),
        ({"seed": -1}, "seed"),
    ],
)
def test_hyperparameters_without_sense_name_their_field(wanted: dict[str, float], field: str) -> None:
    recipe = Recipe("mine", settings=settings_from(WHOLE, name="mine"))

    with pytest.raises(InvalidJob, match=field):
        rendered(recipe, job(**wanted), DATA, FOLDERS, GPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("examples", "world", "run", "expected"),
    [
        (
            108,
            1,
            RunSettings(per_device_train_batch_size=2, gradient_accumulation_steps=4, num_train_epochs=1),
            14,
        ),
        (1000, 8, RunSettings(per_device_train_batch_size=1, num_train_epochs=2), 250),
        (3, 1, RunSettings(per_device_train_batch_size=8, gradient_accumulation_steps=4), 3),
        (1000, 1, RunSettings(max_steps=7), 7),
        (80, 1, RunSettings(max_steps=-1), 30),
    ],
)
def test_steps_are_counted_as_the_trainer_counts_them(
    examples: int, world: int, run: RunSettings, expected: int
) -> None:
    """The first line is a real run's: 108 examples made 14 steps."""
    assert steps(run, examples=examples, world=world) == expected


@pytest.mark.parametrize(
    ("folder", "told"), [("jobs/1", "must be absolute"), ("/a b/1", "a space"), ("/a${b}/1", "has ${")]
)
def test_folders_that_the_trainer_cannot_take_are_refused(folder: str, told: str) -> None:
    recipe = read_recipe(
        "settings: {model_name_or_path: /m, template: qwen}\nlaunch: {by: torchrun}", name="mine"
    )
    path = Path(folder)

    with pytest.raises(BadRecipe) as fault:
        rendered(recipe, job(), DATA, Folders(path, path / "output"), GPU)

    assert any(told in problem for problem in fault.value.problems)


def test_extra_settings_are_handed_on() -> None:
    recipe = read_recipe(
        "settings: {model_name_or_path: /m, template: qwen}\nextra: {ray_num_workers: 2}", name="mine"
    )

    assert rendered(recipe, job(), DATA, FOLDERS, GPU).settings["ray_num_workers"] == 2
    assert flat(recipe.settings).keys() == WHOLE.keys()
