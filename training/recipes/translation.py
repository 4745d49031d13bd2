"""An invocation of old (train_bash.py, deepspeed, torchrun, accelerate) as a recipe, and what changed.

No flag is lost in silence: it stands in the recipe under its own name, or a note names it.
"""

from collections.abc import Mapping

import msgspec

from training.recipes.case import Case
from training.recipes.checks import problems, warnings
from training.recipes.keys import RENAMED, VALUES, named
from training.recipes.model_settings import DataSettings, MethodSettings, ModelSettings
from training.recipes.old_command import OldCommand, taken_apart
from training.recipes.old_launch import launch_of
from training.recipes.recipe import KNOWN, Recipe, settings_from
from training.recipes.run_settings import RunSettings
from training.recipes.yaml_lines import parsed

_SOURCE = 512
"""The old defaults of max_source_length and max_target_length."""
_HELD_OUT = "is left out: a dataset holds examples out itself, by user and not by example"
_LEFT = {
    "padding_side": "is left out: LLaMA-Factory pads as the stage needs it",
    "val_size": _HELD_OUT,
    "dev_ratio": _HELD_OUT,
    "deepspeed": "is launch.deepspeed",
}
_PATHS = frozenset({"model_name_or_path", "adapter_name_or_path", "cache_dir", "ref_model"})


class Translation(msgspec.Struct, frozen=True):
    """The recipe, and everything that is not as it was."""

    recipe: Recipe
    notes: tuple[str, ...]


def translated(
    command: str, *, name: str = "translated", home: str = "", files: Mapping[str, str] | None = None
) -> Translation:
    """The recipe of an old command. Raises BadCommand where it is none that trains.

    `home` is what `~` stands for; `files` are the texts of files that the command names.
    """
    old = taken_apart(command)
    texts = files or {}
    notes = [f"{word} is left out" for word in old.left]
    written = _written(old, texts, notes)
    launched = launch_of(old, texts, written.get("deepspeed"))
    notes += launched.notes
    values = _values(written, notes)
    if launched.precision and not {"bf16", "fp16"} & values.keys():
        values[launched.precision] = True
    values = _expanded(values, home, notes)
    launch = launched.launch
    if values.get("save_only_model") or values.get("save_strategy") == "no":
        launch = msgspec.structs.replace(launch, resumable=False)
        notes.append("launch.resumable is false: without whole checkpoints no run goes on")
    recipe = Recipe(
        name=name,
        description="Translated from a command",
        settings=settings_from(values, name=name),
        launch=launch,
    )
    notes += warnings(Case(recipe))
    notes += [f"to mend before it runs: {problem}" for problem in problems(Case(recipe))]
    return Translation(recipe, tuple(dict.fromkeys(notes)))


def _written(old: OldCommand, files: Mapping[str, str], notes: list[str]) -> dict[str, object]:
    """Settings as they were said, in the file that llamafactory-cli was given and by flags over it."""
    written: dict[str, object] = {}
    if old.file:
        text = files.get(old.file)
        if text is None:
            notes.append(f"{old.file} was not read: its settings are missing")
        else:
            written |= parsed(text, name=old.file)
    for key, word in old.flags:
        if key in written:
            notes.append(f"--{key} is there more than once: the last counts")
        written[key] = True if word is None else word
    return written


def _values(written: dict[str, object], notes: list[str]) -> dict[str, object]:
    """Settings under today's names, each of the right type."""
    values: dict[str, object] = {}
    _lengths(written, values, notes)
    _checkpoint(written, values, notes)
    for key, value in written.items():
        _carried(key, value, values, notes)
    return values


def _lengths(written: dict[str, object], values: dict[str, object], notes: list[str]) -> None:
    """Prompt and answer had a limit each; today they have one together."""
    both = [key for key in ("max_source_length", "max_target_length") if key in written]
    if not both:
        return
    said = {key: written.pop(key) for key in both}
    numbers = [
        _typed("cutoff_len", said.get(key, _SOURCE)) for key in ("max_source_length", "max_target_length")
    ]
    named_flags = " and ".join(f"--{key} {value}" for key, value in said.items())
    lengths = [number for number in numbers if isinstance(number, int)]
    if len(lengths) < 2:
        notes.append(f"{named_flags}: no whole numbers above 0; set cutoff_len")
        return
    values["cutoff_len"] = sum(lengths)
    notes.append(f"{named_flags}: together cutoff_len {sum(lengths)}, prompt and answer in one limit")


def _checkpoint(written: dict[str, object], values: dict[str, object], notes: list[str]) -> None:
    """Where an earlier run ended: an adapter, or a whole model."""
    path = written.pop("checkpoint_dir", None)
    if path is None:
        return
    if path is True:
        notes.append("--checkpoint_dir has no value: it is left out")
    elif written.get("finetuning_type", "lora") == "lora":
        values["adapter_name_or_path"] = path
        notes.append(f"--checkpoint_dir {path} is adapter_name_or_path today")
    else:
        model = written.pop("model_name_or_path", None)
        values["model_name_or_path"] = path
        notes.append(
            f"--checkpoint_dir {path} is model_name_or_path, instead of --model_name_or_path {model}"
        )


def _carried(key: str, value: object, values: dict[str, object], notes: list[str]) -> None:
    """One setting into `values`, or a note why not."""
    said = f"--{key}" if value is True else f"--{key} {value}"
    if key in _LEFT:
        notes.append(f"{said} {_LEFT[key]}")
        return
    if key in VALUES:
        value = _scalar(value)
    elif (today := RENAMED.get(key, key)) in KNOWN:
        typed = _typed(today, value)
        if typed is None:
            notes.append(f"{said} is left out: {today} does not take this value")
            return
        value = typed
    found = named({key: value}, KNOWN)
    notes += [f"--{note}" for note in found.notes]
    notes += [f"{said} is left out: {problem}" for problem in found.problems]
    for name, carried in found.values.items():
        if name in values:
            notes.append(f"{said} is left out: {name} is there already")
        elif _typed(name, carried) is None:
            notes.append(f"{said} is left out: {name} does not take this value")
        else:
            values[name] = carried


def _typed(key: str, value: object) -> object:
    """The value as the setting's type, from a command's word; None where it does not fit."""
    for part in (ModelSettings, DataSettings, MethodSettings, RunSettings):
        if key in part.__struct_fields__:
            try:
                return getattr(msgspec.convert({key: _word(key, value)}, part, strict=False), key)
            except msgspec.ValidationError:
                return None
    return None


def _word(key: str, value: object) -> object:
    """A flag without a value means yes; a YAML file's False stands for the word no in a strategy."""
    if value is False and key.endswith("_strategy"):
        return "no"
    return value


def _scalar(value: object) -> object:
    """A command's word as the number or the truth value that it is, if it is one."""
    if not isinstance(value, str):
        return value
    if value.lower() in {"true", "false"}:
        return value.lower() == "true"
    try:
        return float(value)
    except ValueError:
        return value


def _expanded(values: dict[str, object], home: str, notes: list[str]) -> dict[str, object]:
    """Paths that begin with ~, which only a shell expands."""
    expanded = dict(values)
    for key in _PATHS & values.keys():
        path = str(values[key])
        if home and (path == "~" or path.startswith("~/")):
            expanded[key] = home.rstrip("/") + path[1:]
            notes.append(f"--{key} {path} is written out as {expanded[key]}")
    return expanded
