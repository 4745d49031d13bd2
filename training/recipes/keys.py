"""Names of settings: old ones and what became of them, those that a job sets, those that have no place here.

LLaMA-Factory 0.9.5 ends at a name that it does not know after 6 to 15 seconds of imports.
"""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "evaluation_strategy": "eval_strategy",
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "per_gpu_eval_batch_size": "per_device_eval_batch_size",
        "no_cuda": "use_cpu",
        "dpo_beta": "pref_beta",
        "dpo_ftx": "pref_ftx",
        "dpo_loss": "pref_loss",
        "kto_beta": "pref_beta",
        "kto_ftx": "pref_ftx",
        "orpo_beta": "pref_beta",
        "use_rs_lora": "use_rslora",
        "num_layer_trainable": "freeze_trainable_layers",
        "name_module_trainable": "freeze_trainable_modules",
        "quantization_bits": "quantization_bit",
        "cutoff_length": "cutoff_len",
        "lora_r": "lora_rank",
        "preprocessing_workers": "preprocessing_num_workers",
        "double_quant": "double_quantization",
        "system_prompt": "default_system",
        "flash_attention": "flash_attn",
    }
)
"""Names of older versions of LLaMA-Factory and transformers, and likely slips, by today's name."""

_EACH_JOB = "is set for each job, by its dataset and its folder: leave it out"
_HERE = "models stay in the training folder, nothing is sent elsewhere: leave it out"
_LAUNCH = "is written from launch.deepspeed: {stage: 0 to 3}; leave it out of settings"
_NOT_TRAINING = "is no matter of training: leave it out"

RESERVED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "dataset",
                "eval_dataset",
                "dataset_dir",
                "media_dir",
                "output_dir",
                "overwrite_output_dir",
                "resume_from_checkpoint",
                "logging_dir",
                "run_name",
                "tokenized_path",
                "overwrite_cache",
            ),
            _EACH_JOB,
        ),
        **dict.fromkeys(
            (
                "push_to_hub",
                "hub_token",
                "hub_model_id",
                "hub_private_repo",
                "hub_strategy",
                "hf_hub_token",
                "ms_hub_token",
                "om_hub_token",
                "report_to",
                "use_swanlab",
                "swanlab_api_key",
                "trackio_space_id",
            ),
            _HERE,
        ),
        **dict.fromkeys(
            ("do_predict", "predict_with_generate", "infer_backend", "export_dir"), _NOT_TRAINING
        ),
        "deepspeed": _LAUNCH,
        "local_rank": "is set by the launcher: leave it out",
        "streaming": "would hide how many examples there are, which is checked: leave it out",
        "buffer_size": "belongs to streaming, which is not used: leave it out",
        "fsdp": "is not offered; use launch.deepspeed: {stage: 3}",
        "fsdp_config": "is not offered; use launch.deepspeed: {stage: 3}",
    }
)
"""Settings of LLaMA-Factory that a recipe may not have, and why. `extra` may not have them either."""


class Named(msgspec.Struct, frozen=True):
    """Settings under today's names, what was changed, and what is wrong with the rest."""

    values: Mapping[str, object]
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def named(settings: Mapping[str, object], known: frozenset[str]) -> Named:
    """Give old names their new ones, and find the names that are none. The values stay unread."""
    values: dict[str, object] = {}
    notes: list[str] = []
    problems: list[str] = []
    for written, value in settings.items():
        key, now, note = _today(written, value)
        if note:
            notes.append(note)
        if key in RESERVED:
            problems.append(f"{key} {RESERVED[key]}")
        elif key in OLD and key not in known:
            problems.append(
                f"{key}: {value} is an old name with a value that it does not take{_HINT.get(key, '')}"
            )
        elif key not in known:
            problems.append(f"{key} is no setting of LLaMA-Factory that is known here{_meant(key, known)}")
        elif key in values or (key != written and key in settings):
            problems.append(
                f"{written} is the old name of {key}, which is there as well: leave {written} out"
            )
        else:
            values[key] = now
    return Named(values, tuple(notes), tuple(problems))


def _today(key: str, value: object) -> tuple[str, object, str]:
    if key in VALUES:
        return VALUES[key](value)
    if key in RENAMED:
        return RENAMED[key], value, f"{key} is called {RENAMED[key]} today"
    return key, value, ""


def _warmup(value: object) -> tuple[str, object, str]:
    """Transformers 5 takes `warmup_steps` below 1 for a share; a share of 1 it would take for one step."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return (
            "warmup_steps",
            value,
            f"warmup_ratio: {value} is written as warmup_steps: {value}, a share of all",
        )
    return "warmup_ratio", value, ""


def _flash(value: object) -> tuple[str, object, str]:
    """A switch in old versions, a word today."""
    if isinstance(value, bool):
        word = "fa2" if value else "disabled"
        return "flash_attn", word, f"flash_attn: {str(value).lower()} is written as flash_attn: {word} today"
    return "flash_attn", value, ""


def _by_length(value: object) -> tuple[str, object, str]:
    if isinstance(value, bool):
        word = "group_by_length" if value else "random"
        return "train_sampling_strategy", word, f"group_by_length is train_sampling_strategy: {word} today"
    return "group_by_length", value, ""


def _resumed(value: object) -> tuple[str, object, str]:
    """The question was turned around."""
    if isinstance(value, bool):
        now = not value
        note = f"resume_lora_training: {str(value).lower()} is create_new_adapter: {str(now).lower()} today"
        return "create_new_adapter", now, note
    return "resume_lora_training", value, ""


VALUES: Mapping[str, Callable[[object], tuple[str, object, str]]] = MappingProxyType(
    {
        "warmup_ratio": _warmup,
        "flash_attn": _flash,
        "group_by_length": _by_length,
        "resume_lora_training": _resumed,
    }
)
"""Old settings whose value changes with the name: what they become, and the note to tell."""


OLD = frozenset({*RENAMED, *VALUES} - {"flash_attn"})
"""Names that LLaMA-Factory 0.9.5 does not know, or warns of."""


_HINT = {"warmup_ratio": "; write warmup_steps: a share below 1, or a number of steps"}


def _meant(key: str, known: frozenset[str]) -> str:
    """What was probably meant, for a message."""
    near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else "; what is needed all the same goes into extra"
