"""`friendo recipes`: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from training.recipes.recipe import read_recipe
from training.recipes.yaml_lines import parsed

CONFIG = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "model_type": "qwen2",
}


def friendo(*words: str) -> Result:
    return CliRunner().invoke(app, ["recipes", *words])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_list_shows_every_recipe() -> None:
    ran = friendo("list")

    assert ran.exit_code == 0
    assert len(ran.stdout.splitlines()) == 9
    assert "tiny_cpu\tLoRA adapter for SmolLM2 135M" in ran.stdout


def test_list_tells_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("settings: {lora_rnk: 8}")
    (tmp_path / "half.yaml").write_text("settings: {template: qwen}")

    ran = friendo("list", "--folder", str(tmp_path))

    assert ran.exit_code == 1
    assert "bad: lora_rnk is no setting" in ran.stderr
    assert "half: model_name_or_path is missing" in ran.stderr


def test_show_warns_where_the_memory_is_not_enough(model: Path) -> None:
    large, small = (
        friendo("show", "lora_sft_qwen2_5_7b", "--model", str(model), "--gpu-gib", gib)
        for gib in ("80", "24")
    )

    assert (large.exit_code, small.exit_code) == (0, 0)
    assert "warning" not in large.stderr
    assert "does not fit into 24 GiB" in small.stderr
    text = "".join(line for line in large.stdout.splitlines(keepends=True) if not line.startswith("#"))
    assert read_recipe(text, name="again").settings.method.lora_rank == 16
    assert "total" in large.stdout


def test_show_says_what_the_estimate_needs(tmp_path: Path) -> None:
    without = friendo("show", "tiny_cpu", "--gpu-gib", "8")
    nothing = friendo("show", "tiny_cpu", "--model", str(tmp_path))

    assert "give --model DIR" in without.stderr
    assert nothing.exit_code == 1
    assert "config.json cannot be read" in nothing.stderr


def test_render_writes_what_the_command_needs(tmp_path: Path) -> None:
    job = tmp_path / "job"
    ran = friendo("render", "tiny_cpu", "--dataset", str(tmp_path), "--job", str(job), "--write")

    written = parsed((job / "recipe.yaml").read_text(), name="tiny_cpu")
    assert ran.exit_code == 0
    assert written["output_dir"] == str(job / "output")
    assert f"# llamafactory-cli train {job}/recipe.yaml" in ran.stdout
    assert "# export CUDA_VISIBLE_DEVICES=''" in ran.stdout


def test_render_takes_gpus_and_writes_nothing_unasked(tmp_path: Path) -> None:
    job = tmp_path / "job"
    ran = friendo(
        "render", "full_sft_zero3_7b", "--dataset", "d", "--job", str(job), "--gpus", "0,1,2,3,4,5,6,7"
    )

    assert ran.exit_code == 0
    assert "# export NPROC_PER_NODE=8" in ran.stdout
    assert not job.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("show", "nothing"), "there is no recipe nothing; there are: dpo_lora"),
        (
            ("render", "dpo_lora", "--dataset", "d", "--job", "j", "--gpus", "0"),
            "needs a recipe with stage: sft",
        ),
        (("render", "tiny_cpu", "--dataset", "d", "--job", "j", "--method", "kto"), "supervised or dpo"),
        (("translate", "rm -rf x"), "begins with none of"),
    ],
)
def test_mistakes_are_told_without_a_traceback(words: tuple[str, ...], told: str) -> None:
    ran = friendo(*words)

    assert ran.exit_code == 1
    assert ran.stderr.startswith("friendo recipes: ")
    assert told in ran.stderr


def test_translate_prints_a_recipe_and_its_notes(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("num_processes: 4\n")
    ran = friendo(
        "translate",
        f"accelerate launch --config_file {config} src/train_bash.py --stage sft --model_name_or_path /m "
        "--template qwen --dataset a --evaluation_strategy no",
    )

    assert ran.exit_code == 0
    assert read_recipe(ran.stdout, name="mine").launch.processes == 4
    assert "note: --dataset a is left out" in ran.stderr
    assert "note: --evaluation_strategy is called eval_strategy today" in ran.stderr
