"""The recipe: settings of LLaMA-Factory and how its processes are launched. One file holds one."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from training.recipes.faults import BadRecipe
from training.recipes.keys import OLD, RESERVED, named
from training.recipes.model_settings import DataSettings, MethodSettings, ModelSettings
from training.recipes.run_settings import RunSettings
from training.recipes.yaml_lines import parsed, written

Offload = Literal["none", "optimizer", "all"]


class Settings(msgspec.Struct, frozen=True):
    """LLaMA-Factory's settings, by whose they are. In a file all stand together."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    method: MethodSettings = MethodSettings()
    run: RunSettings = RunSettings()


class DeepSpeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ZeRO: what is divided among the GPUs. 0 nothing, 1 the optimiser, 2 gradients too, 3 weights too."""

    stage: Literal[0, 1, 2, 3]
    offload: Offload = "none"
    """What lies in the machine's memory instead: the optimiser's states, or (stage 3 only) weights too."""


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How many processes train, and what begins them."""

    by: Literal["plain", "torchrun", "accelerate"] = "plain"
    processes: Annotated[int, Meta(ge=1, le=64)] = 1
    """On each node; one for each GPU."""
    nodes: Annotated[int, Meta(ge=1, le=1024)] = 1
    deepspeed: DeepSpeed | None = None
    environment: dict[str, str] = {}
    """Beside what is set anyway."""
    resumable: bool = True
    """A job that is paused, or whose worker dies, goes on from its newest checkpoint."""
    offline: bool = True
    """Models come from the disk; False lets them be downloaded."""

    @property
    def world(self) -> int:
        """Processes on all nodes together."""
        return self.processes * self.nodes


class Accept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What would be refused otherwise."""

    templates: tuple[str, ...] = ()
    """Names of templates that this version of the program does not know."""
    short_cutoff: bool = False
    """A cutoff_len below the dataset's longest prompts: they are cut."""


class Recipe(msgspec.Struct, frozen=True):
    """How to train, whoever's dialogues it is."""

    name: str
    description: str = ""
    settings: Settings = Settings()
    launch: Launch = Launch()
    accept: Accept = Accept()
    extra: Mapping[str, object] = {}
    """Settings that are handed on unread."""
    notes: tuple[str, ...] = ()
    """What was changed in reading."""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    description: str = ""
    settings: dict[str, object] = {}
    launch: Launch = Launch()
    accept: Accept = Accept()
    extra: dict[str, object] = {}


_PARTS = (ModelSettings, DataSettings, MethodSettings, RunSettings)
KNOWN = frozenset(field for part in _PARTS for field in part.__struct_fields__)


def read_recipe(text: str, *, name: str) -> Recipe:
    """The recipe of a file's text. Raises BadRecipe with every problem of its form.

    Whether it would work is the business of `checks`.
    """
    try:
        document = msgspec.convert(parsed(text, name=name), _Document)
    except msgspec.ValidationError as error:
        raise BadRecipe(name, (str(error),)) from None
    found = named(document.settings, KNOWN)
    wrong = [
        f"extra.{key} is a known setting: write it under settings" for key in document.extra if key in KNOWN
    ]
    wrong += [f"extra.{key} {RESERVED[key]}" for key in document.extra if key in RESERVED]
    wrong += [f"extra.{key} is an old name: write it under settings" for key in document.extra if key in OLD]
    settings, mistyped = _typed(found.values)
    problems = (*found.problems, *wrong, *mistyped, *_interpolated({**found.values, **document.extra}))
    if problems:
        raise BadRecipe(name, problems)
    return Recipe(
        name=name,
        description=document.description,
        settings=settings,
        launch=document.launch,
        accept=document.accept,
        extra=document.extra,
        notes=found.notes,
    )


def settings_from(values: Mapping[str, object], *, name: str) -> Settings:
    """Flat settings under today's names, typed. Raises BadRecipe."""
    settings, problems = _typed(values)
    if problems:
        raise BadRecipe(name, tuple(problems))
    return settings


def flat(settings: Settings) -> dict[str, object]:
    """What is set, in one mapping, as LLaMA-Factory reads it."""
    return {
        key: value
        for part in (settings.model, settings.method, settings.data, settings.run)
        for key, value in msgspec.structs.asdict(part).items()
        if value is not None
    }


def recipe_text(recipe: Recipe) -> str:
    """The recipe as a file that `read_recipe` reads back."""
    lines = [written({"description": recipe.description})] if recipe.description else []
    lines.append(_section("settings", flat(recipe.settings)))
    for title, part in (("launch", recipe.launch), ("accept", recipe.accept), ("extra", recipe.extra)):
        if values := msgspec.to_builtins(part):
            lines.append(_section(title, values))
    return "".join(lines)


def _section(title: str, values: Mapping[str, object]) -> str:
    if not values:
        return f"{title}: {{}}\n"
    return f"{title}:\n" + "".join(f"  {line}\n" for line in written(values).splitlines())


def _typed(values: Mapping[str, object]) -> tuple[Settings, list[str]]:
    """Each setting alone, so that one mistake does not hide the next."""
    problems: list[str] = []
    parts: list[dict[str, object]] = [{}, {}, {}, {}]
    for index, part in enumerate(_PARTS):
        for key in part.__struct_fields__:
            if key not in values:
                continue
            try:
                msgspec.convert({key: values[key]}, part)
                parts[index][key] = values[key]
            except msgspec.ValidationError as error:
                problems.append(_mistyped(key, values[key], error))
    model, data, method, run = (
        msgspec.convert(found, part) for found, part in zip(parts, _PARTS, strict=True)
    )
    assert isinstance(model, ModelSettings)
    assert isinstance(data, DataSettings)
    assert isinstance(method, MethodSettings)
    assert isinstance(run, RunSettings)
    return Settings(model, data, method, run), problems


def _mistyped(key: str, value: object, error: msgspec.ValidationError) -> str:
    if key.endswith("_strategy") and isinstance(value, bool):
        word = "no" if value is False else "steps"
        return f'{key} is read as {str(value).lower()}: write {key}: "{word}", with the quotes'
    if isinstance(value, bool) and isinstance(error, msgspec.ValidationError):
        return f"{key} is read as {str(value).lower()}: a yes, no, on or off that is a word needs quotes"
    reason = str(error).rpartition(" - at `$")[0] or str(error)
    return f"{key}: {reason}"


def _interpolated(values: Mapping[str, object]) -> list[str]:
    return [
        f"{key} has ${{ in it, which LLaMA-Factory's reader takes for a reference: write it differently"
        for key, value in values.items()
        if "${" in str(value)
    ]
