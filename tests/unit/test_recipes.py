"""Recipes as files: what is read, what is refused with what words, and that all of ours are whole."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipe_settings import settings_values
from training.recipes.case import Case
from training.recipes.checks import problems
from training.recipes.faults import BadRecipe, RecipeMissing
from training.recipes.keys import RENAMED, RESERVED, VALUES
from training.recipes.recipe import KNOWN, Recipe, flat, read_recipe, recipe_text, settings_from
from training.recipes.shelf import Shelf

SHIPPED = Path(__file__).parents[2] / "config" / "recipes"
NAMES = {
    "lora_sft_qwen2_5_7b",
    "full_sft_zero3_0_5b",
    "full_sft_zero3_7b",
    "full_sft_zero3_32b",
    "multi_gpu_accelerate",
    "multi_node_torchrun",
    "dpo_lora",
    "tiny_cpu",
    "tiny_cpu_full",
}


def refused(text: str) -> str:
    with pytest.raises(BadRecipe) as fault:
        read_recipe(text, name="mine")
    return str(fault.value)


def test_all_shipped_recipes_are_there() -> None:
    assert set(Shelf([SHIPPED]).names()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_shipped_recipes_are_whole(name: str) -> None:
    """Readable, under today's names only, explained to the owner, and with nothing that would be refused."""
    shelf = Shelf([SHIPPED])
    recipe = shelf.read(name)

    assert problems(Case(recipe)) == ()
    assert recipe.notes == ()
    assert recipe.description
    assert shelf.text(name).startswith("# ")


@given(settings_values())
def test_any_subset_of_settings_survives_writing_and_reading(values: dict[str, object]) -> None:
    """Every text is quoted, every number stays one."""
    recipe = Recipe(name="mine", description="a: 'b'", settings=settings_from(values, name="mine"))

    again = read_recipe(recipe_text(recipe), name="mine")

    assert flat(again.settings) == values
    assert again == recipe


def test_launch_accept_and_extra_survive() -> None:
    text = (
        "settings: {stage: sft}\n"
        "launch: {by: torchrun, processes: 2, nodes: 3, deepspeed: {stage: 2, offload: optimizer}, "
        "environment: {NCCL_P2P_LEVEL: NVL}, resumable: false, offline: false}\n"
        "accept: {templates: [mine], short_cutoff: true}\nextra: {ray_num_workers: 2}\n"
    )
    recipe = read_recipe(text, name="mine")

    assert (recipe.launch.world, recipe.launch.environment) == (6, {"NCCL_P2P_LEVEL": "NVL"})
    assert read_recipe(recipe_text(recipe), name="mine") == recipe


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("settings: {lora_rnk: 8}", "did you mean lora_rank?"),
        ("settings: {zzzzzz: 8}", "goes into extra"),
        ("settings: {stage: stf}", "stage: Invalid enum value"),
        ("settings: {save_strategy: no}", 'write save_strategy: "no", with the quotes'),
        ("settings: {eval_strategy: off}", 'write eval_strategy: "no", with the quotes'),
        ("settings: {lora_rank: no}", "lora_rank is read as false"),
        ("settings: {learning_rate: -1}", "learning_rate: Expected"),
        ("settings: {lora_rank: 1.5}", "lora_rank: Expected"),
        ("settings: {save_steps: 1.5}", "save_steps: Expected"),
        ("settings: {warmup_ratio: 1.5}", "write warmup_steps: a share below 1"),
        ("settings: {dataset: mine}", "is set for each job"),
        ("settings: {deepspeed: ds.json}", "launch.deepspeed"),
        ("settings: {push_to_hub: true}", "nothing is sent elsewhere"),
        ("settings: {evaluation_strategy: steps, eval_strategy: steps}", "leave evaluation_strategy out"),
        ("settings: {model_name_or_path: '${oc.env:HOME}'}", "takes for a reference"),
        ("extra: {stage: sft}", "write it under settings"),
        ("extra: {output_dir: x}", "is set for each job"),
        ("extra: {evaluation_strategy: x}", "is an old name"),
        ("launch: {by: ray}", "Invalid enum value 'ray'"),
        ("launch: {proceses: 2}", "unknown field `proceses`"),
        ("settings: {stage: sft, stage: dpo}", "has stage twice"),
        ("a: &x [1]\nb: *x", "has an alias"),
        ("settings: {stage: [", "is not YAML"),
        ("- a", "must be lines of `key: value`"),
        ("description: " + "x" * 100_001, "is larger than"),
    ],
)
def test_mistakes_in_a_file_are_told(text: str, told: str) -> None:
    assert told in refused(text)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(BadRecipe) as fault:
        read_recipe("settings: {stage: x, lora_rank: 0, nothing_known: 1, output_dir: y}", name="mine")

    assert len(fault.value.problems) == 4


@pytest.mark.parametrize(
    ("old", "key", "value"),
    [
        ("evaluation_strategy: steps", "eval_strategy", "steps"),
        ("warmup_ratio: 0.1", "warmup_steps", 0.1),
        ("per_gpu_train_batch_size: 4", "per_device_train_batch_size", 4),
        ("no_cuda: true", "use_cpu", True),
        ("dpo_beta: 0.2", "pref_beta", 0.2),
        ("flash_attn: true", "flash_attn", "fa2"),
        ("group_by_length: true", "train_sampling_strategy", "group_by_length"),
        ("resume_lora_training: false", "create_new_adapter", True),
    ],
)
def test_old_names_are_translated_with_a_note(old: str, key: str, value: object) -> None:
    recipe = read_recipe(f"settings: {{{old}}}", name="mine")

    assert flat(recipe.settings) == {key: value}
    assert len(recipe.notes) == 1
    assert old.partition(":")[0] in recipe.notes[0]


def test_numbers_without_a_dot_are_numbers() -> None:
    """PyYAML takes 1e-4 for a text; LLaMA-Factory's reader does not."""
    assert flat(read_recipe("settings: {learning_rate: 1e-4}", name="mine").settings) == {
        "learning_rate": 0.0001
    }


def test_names_belong_to_one_table() -> None:
    """A name that is old and known, or known and reserved, would be translated or refused by accident."""
    assert KNOWN & RESERVED.keys() == set()
    assert KNOWN & RENAMED.keys() == set()
    assert set(RENAMED.values()) <= KNOWN
    assert KNOWN & VALUES.keys() == {"flash_attn"}


@given(st.text(max_size=300))
def test_any_text_is_a_recipe_or_refused(text: str) -> None:
    """Never another exception."""
    with suppress(BadRecipe):
        read_recipe(text, name="mine")


def test_shelf_prefers_the_first_folder_and_stays_inside(tmp_path: Path) -> None:
    for folder, words in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(f"description: {words}")
    (tmp_path / "b" / "other.yaml").write_bytes(b"description: \xff")
    (tmp_path / "secret.yaml").write_text("description: outside")
    shelf = Shelf([tmp_path / "a", tmp_path / "b", tmp_path / "nowhere"])

    assert shelf.read("mine").description == "first"
    assert shelf.names() == ("mine", "other")
    with pytest.raises(RecipeMissing, match="there are: mine, other"):
        shelf.read("../secret")
    with pytest.raises(BadRecipe, match="UTF-8"):
        shelf.read("other")
