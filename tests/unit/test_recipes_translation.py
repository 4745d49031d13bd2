"""Commands of old as recipes: what they become, and that no flag is lost in silence."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.recipes.case import Case
from training.recipes.checks import problems
from training.recipes.faults import BadCommand, BadRecipe
from training.recipes.keys import RENAMED, RESERVED
from training.recipes.old_command import taken_apart
from training.recipes.recipe import KNOWN, DeepSpeed, flat, read_recipe, recipe_text
from training.recipes.translation import Translation, translated

OWNERS = (
    "CUDA_VISIBLE_DEVICES=0 python src/train_bash.py --stage sft --model_name_or_path ~/models/qwen "
    "--do_train --dataset a,b --template default --finetuning_type lora --lora_target q_proj,v_proj "
    "--output_dir ~/out "
    "--overwrite_cache --per_device_train_batch_size 4 --gradient_accumulation_steps 4 "
    "--lr_scheduler_type cosine --logging_steps 10 --save_steps 1000 --learning_rate 5e-5 "
    "--num_train_epochs 3.0 --plot_loss --fp16"
)
SHORT = "--stage sft --model_name_or_path /m --template qwen --finetuning_type full --bf16"


def told(found: Translation, *words: str) -> bool:
    return any(all(word in note for word in words) for note in found.notes)


def test_the_owners_command_is_a_recipe() -> None:
    found = translated(OWNERS, home="/home/owner")

    assert flat(found.recipe.settings) == {
        "stage": "sft",
        "model_name_or_path": "/home/owner/models/qwen",
        "do_train": True,
        "template": "default",
        "finetuning_type": "lora",
        "lora_target": "q_proj,v_proj",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "lr_scheduler_type": "cosine",
        "logging_steps": 10,
        "save_steps": 1000,
        "learning_rate": 5e-5,
        "num_train_epochs": 3.0,
        "plot_loss": True,
        "fp16": True,
    }
    assert (found.recipe.launch.by, found.recipe.launch.world) == ("plain", 1)
    assert problems(Case(found.recipe)) == ()
    for words in (
        ("CUDA_VISIBLE_DEVICES=0", "for each run"),
        ("--dataset a,b", "for each job"),
        ("--output_dir ~/out", "for each job"),
        ("--overwrite_cache", "for each job"),
        ("~/models/qwen", "/home/owner/models/qwen"),
        ("template default", "no model's own"),
    ):
        assert told(found, *words)
    assert read_recipe(recipe_text(found.recipe), name="translated") == found.recipe


def test_deepspeed_becomes_torchrun_with_a_stage() -> None:
    command = f"deepspeed --num_gpus 8 --master_port=9901 src/train_bash.py --deepspeed ds.json {SHORT}"
    ds = json.dumps({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}})
    known, unknown = translated(command, files={"ds.json": ds}), translated(command)

    assert (known.recipe.launch.by, known.recipe.launch.processes) == ("torchrun", 8)
    assert known.recipe.launch.deepspeed == DeepSpeed(stage=2, offload="optimizer")
    assert told(known, "--master_port 9901", "when a run begins")
    assert told(known, "launcher deepspeed", "torchrun")
    assert unknown.recipe.launch.deepspeed == DeepSpeed(stage=3)
    assert told(unknown, "ds.json was not read", "by guess")
    assert problems(Case(known.recipe)) == ()


def test_accelerates_file_is_read_where_it_is_known() -> None:
    command = f"accelerate launch --config_file c.yaml src/train_bash.py {SHORT.replace(' --bf16', '')}"
    known = translated(command, files={"c.yaml": "num_processes: 8\nnum_machines: 2\nmixed_precision: fp16"})
    unknown = translated(command)

    assert (known.recipe.launch.by, known.recipe.launch.processes, known.recipe.launch.nodes) == (
        "accelerate",
        4,
        2,
    )
    assert known.recipe.settings.run.fp16
    assert told(unknown, "c.yaml was not read", "set launch.processes")
    assert told(translated(command, files={"c.yaml": "- x"}), "was not understood")


@pytest.mark.parametrize(
    "launcher",
    [
        "torchrun --nproc_per_node 4 --nnodes=2 src/train.py",
        "torchrun --nproc-per-node=4 --nnodes 2 --node_rank 0 -m llamafactory.launcher",
        "python3 -m torch.distributed.run --nproc_per_node 4 --nnodes 2 src/train_bash.py",
        "/opt/bin/python3.10 -m torch.distributed.launch --nproc_per_node=4 --nnodes=2 src/train_bash.py",
    ],
)
def test_torchrun_in_its_forms(launcher: str) -> None:
    launch = translated(f"{launcher} {SHORT}").recipe.launch

    assert (launch.by, launch.processes, launch.nodes) == ("torchrun", 4, 2)


def test_several_visible_gpus_are_several_processes() -> None:
    found = translated(f"CUDA_VISIBLE_DEVICES=0,1 NCCL_P2P_LEVEL=NVL python src/train_bash.py {SHORT}")

    assert (found.recipe.launch.by, found.recipe.launch.processes) == ("torchrun", 2)
    assert found.recipe.launch.environment == {"NCCL_P2P_LEVEL": "NVL"}


@pytest.mark.parametrize(
    ("flags", "key", "value", "words"),
    [
        (
            "--max_source_length 1024 --max_target_length 512",
            "cutoff_len",
            1536,
            ("--max_source_length 1024",),
        ),
        ("--max_target_length 256", "cutoff_len", 768, ("--max_target_length 256",)),
        ("--checkpoint_dir /c", "adapter_name_or_path", "/c", ("--checkpoint_dir /c",)),
        (
            "--finetuning_type full --checkpoint_dir /c",
            "model_name_or_path",
            "/c",
            ("--model_name_or_path /m",),
        ),
        ("--quantization_bit 4", "quantization_bit", 4, ()),
        ("--lora_rank 16", "lora_rank", 16, ()),
        ("--evaluation_strategy steps", "eval_strategy", "steps", ("--evaluation_strategy",)),
        ("--warmup_ratio 0.1", "warmup_steps", 0.1, ("--warmup_ratio",)),
        ("--flash_attn", "flash_attn", "fa2", ("--flash_attn",)),
        ("--flash_attn fa2", "flash_attn", "fa2", ()),
        ("--group_by_length True", "train_sampling_strategy", "group_by_length", ("group_by_length",)),
        ("--plot_loss false", "plot_loss", False, ()),
        ("--lora_target q_proj v_proj", "lora_target", "q_proj,v_proj", ()),
        ("--max_steps -1", "max_steps", -1, ()),
        ("--learning-rate=1e-4", "learning_rate", 1e-4, ()),
        ("--save_strategy no", "save_strategy", "no", ("launch.resumable is false",)),
        ("--save_only_model", "save_only_model", True, ("launch.resumable is false",)),
        ("--val_size 0.1", "val_size", None, ("--val_size 0.1", "by user")),
        ("--padding_side left", "padding_side", None, ("--padding_side left",)),
        ("--report_to wandb", "report_to", None, ("--report_to wandb",)),
        ("--max_source_length x", "cutoff_len", None, ("--max_source_length x",)),
        ("--checkpoint_dir", "adapter_name_or_path", None, ("--checkpoint_dir",)),
        ("--lora_rank eight", "lora_rank", None, ("--lora_rank eight",)),
        ("--quantization_bit null", "quantization_bit", None, ("--quantization_bit null",)),
        ("--lora_rnk 8", "lora_rnk", None, ("--lora_rnk 8", "did you mean lora_rank?")),
        ("--lora_rank 8 --lora_rank 16", "lora_rank", 16, ("more than once",)),
        ("--eval_strategy no --evaluation_strategy steps", "eval_strategy", "no", ("--evaluation_strategy",)),
        ("stray", "stray", None, ("stray is left out",)),
    ],
)
def test_flags_of_old(flags: str, key: str, value: object, words: tuple[str, ...]) -> None:
    found = translated(
        f"python src/train_bash.py --model_name_or_path /m --template qwen --fp16 False {flags}"
    )

    assert flat(found.recipe.settings).get(key) == value
    assert not words or told(found, *words)


_FLAGS = st.sampled_from(
    sorted(
        {*KNOWN, *RESERVED, *RENAMED, "warmup_ratio", "padding_side", "checkpoint_dir", "max_source_length"}
    )
)
_NAMES = _FLAGS | st.from_regex(r"[a-z][a-z_]{2,12}", fullmatch=True)
_WORDS = st.sampled_from(["1", "0.5", "no", "true", "steps", "/m", "a,b", "null", "full"]) | st.none()


@given(st.dictionaries(_NAMES, _WORDS, max_size=12))
def test_no_flag_is_lost_in_silence(flags: dict[str, str | None]) -> None:
    """Under its own name in the recipe, or named in a note."""
    words = " ".join(f"--{name}" if word is None else f"--{name} {word}" for name, word in flags.items())

    found = translated(f"python src/train_bash.py {words}")

    settings = flat(found.recipe.settings)
    for name in flags:
        assert name in settings or told(found, name)


@given(st.dictionaries(st.sampled_from(["num_gpus", "hostfile", "include", "x_y", "nnodes"]), _WORDS))
def test_no_flag_of_a_launcher_is_lost_in_silence(flags: dict[str, str | None]) -> None:
    words = " ".join(f"--{name}" if word is None else f"--{name} {word}" for name, word in flags.items())

    found = translated(f"deepspeed {words} src/train_bash.py {SHORT}")

    assert all(told(found, f"--{name}") for name in flags)


@given(st.text(max_size=200))
def test_any_text_is_a_command_or_refused(text: str) -> None:
    for command in (text, f"python train.py {text}", f"deepspeed {text} a.py --deepspeed x"):
        with suppress(BadCommand, BadRecipe):
            translated(command)


def test_a_yaml_that_llamafactory_was_given_is_read() -> None:
    command = "FORCE_TORCHRUN=1 llamafactory-cli train a.yaml learning_rate=1e-5 2>&1 > log"
    text = "stage: dpo\neval_strategy: no\nlearning_rate: 1.0e-4\ndeepspeed: ds.json"
    zero = '{"zero_optimization": {"stage": 2}}'
    known, unknown = translated(command, files={"a.yaml": text, "ds.json": zero}), translated(command)

    assert known.recipe.launch.deepspeed == DeepSpeed(stage=2)
    assert flat(known.recipe.settings) == {"stage": "dpo", "eval_strategy": "no", "learning_rate": 1e-5}
    assert told(known, "--learning_rate", "more than once")
    assert told(known, "FORCE_TORCHRUN=1", "for each run")
    assert told(unknown, "a.yaml was not read")


def test_lines_that_go_on_are_one_command() -> None:
    found = translated("nohup python train.py --lora_rank 8 \\\n  --lora_alpha 16 > log 2>&1 &")

    assert flat(found.recipe.settings) == {"lora_rank": 8, "lora_alpha": 16}
    assert told(found, "log is left out")


@pytest.mark.parametrize(
    ("command", "told_of"),
    [
        ("", "begins with none of"),
        ("rm -rf x", "begins with none of"),
        ("python", "begins with none of"),
        ("deepspeed --num_gpus 8", "names no script"),
        ("cd x && python train.py", "several"),
        ("python train.py 'x", "cannot be read"),
        ("x" * 20_001, "longer than"),
    ],
)
def test_what_is_no_training_command_is_refused(command: str, told_of: str) -> None:
    with pytest.raises(BadCommand, match=told_of):
        taken_apart(command)
