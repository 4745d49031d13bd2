"""`friendo recipes`: how jobs are trained, what that takes, and what a run would be started with."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.job import Job, Method
    from training.ports import Prepared
    from training.recipes.memory import Memory
    from training.recipes.place import Machine
    from training.recipes.recipe import Recipe
    from training.recipes.rendering import Rendered
    from training.recipes.shelf import Shelf

recipes = typer.Typer(help="Recipes of training: list, show, render, translate.", no_args_is_help=True)

FAILED = 1
_MAX_FILE = 1_000_000
_Name = Annotated[str, typer.Argument(metavar="NAME", help="As `friendo recipes list` shows it.")]
_Folder = Annotated[
    list[Path] | None,
    typer.Option("--folder", help="Where recipes are; repeatable.", show_default="config/recipes"),
]
_Model = Annotated[
    Path | None, typer.Option("--model", metavar="DIR", help="The model's folder, with its config.json.")
]
_GpuGib = Annotated[float | None, typer.Option(min=1, help="Memory of one GPU, in GiB.")]


@recipes.command("list")
def list_recipes(folder: _Folder = None) -> None:
    """Show every recipe with its description; those that would not work say why."""
    with _reported():
        shelf, broken = _shelf(folder), False
        for name in shelf.names():
            found, wrong = _read(shelf, name)
            print(f"{name}\t{'' if found is None else found.description}")
            for problem in wrong:
                broken = True
                print(f"{name}: {problem}", file=sys.stderr)
    if broken:
        raise typer.Exit(FAILED)


@recipes.command()
def show(name: _Name, model: _Model = None, gpu_gib: _GpuGib = None, folder: _Folder = None) -> None:
    """Show a recipe as it is read, what may surprise, and what it takes of each GPU."""
    with _reported():
        from training.recipes.case import Case
        from training.recipes.checks import checked, warnings
        from training.recipes.memory import memory
        from training.recipes.recipe import recipe_text
        from training.recipes.shape import shape_of

        recipe = _shelf(folder).read(name)
        found = model or _folder_of(recipe)
        estimate = None if found is None else memory(recipe, shape_of(_content(found / "config.json")))
        print(recipe_text(recipe), end="")
        if estimate is not None:
            _print_memory(estimate, gpu_gib)
        elif gpu_gib is not None:
            print("note: give --model DIR: the estimate needs the model's config.json", file=sys.stderr)
        _tell((*recipe.notes, *warnings(Case(recipe))))
        checked(Case(recipe, base_model=str(model or "")))


@recipes.command()
def render(  # noqa: PLR0913, PLR0917 - each is an option of the command
    name: _Name,
    dataset: Annotated[Path, typer.Option(metavar="DIR", help="A folder with dataset_info.json.")],
    job: Annotated[Path, typer.Option(metavar="DIR", help="Gets the files.")],
    train: Annotated[str, typer.Option(help="The dataset's name in it.")] = "train",
    evaluation: Annotated[str, typer.Option(help="The same of what is held out.")] = "",
    examples: Annotated[int, typer.Option(min=1, help="How many `train` has.")] = 1000,
    longest_prompt: Annotated[int, typer.Option(min=0, help="Tokens, the 99th percentile.")] = 0,
    method: Annotated[str, typer.Option(help="supervised or dpo.")] = "supervised",
    gpus: Annotated[str, typer.Option(help="Like 0,1; empty: the CPU.")] = "",
    node_rank: Annotated[int, typer.Option(min=0, help="This machine's, of several.")] = 0,
    master_addr: Annotated[str, typer.Option(help="The first machine's address.")] = "127.0.0.1",
    master_port: Annotated[int, typer.Option(min=1, max=65535, help="A free one there.")] = 29500,
    model: _Model = None,
    write: Annotated[bool, typer.Option("--write", help="Write the files into --job.")] = False,  # noqa: FBT002
    folder: _Folder = None,
) -> None:
    """Show what a run by this recipe would be started with: YAML, environment and command.

    Nothing is started. With --write, the files are written, and the printed command can be run by hand.
    """
    with _reported():
        from training.ports import Prepared
        from training.recipes.place import Machine

        data = Prepared(dataset.absolute(), train, evaluation, examples, longest_prompt)
        machine = Machine(
            gpus=tuple(part.strip() for part in gpus.split(",") if part.strip()),
            cores=os.cpu_count() or 1,
            node_rank=node_rank,
            master_addr=master_addr,
            master_port=master_port,
        )
        found = _rendered(_shelf(folder).read(name), _by_hand(name, method), data, job, machine, model)
        if write:
            _write(found, job)
        _print_rendered(found)


@recipes.command()
def translate(
    command: Annotated[str, typer.Argument(help="In quotes, as it was typed.")],
) -> None:
    """Print an old training command as a recipe; what changed or was left out goes to standard error.

    The command may begin with python, deepspeed, torchrun, accelerate launch or llamafactory-cli train. Files
    that it names (DeepSpeed's, accelerate's, a YAML) are read where they are there. Nothing is run.
    """
    with _reported():
        from training.recipes.old_command import taken_apart
        from training.recipes.recipe import recipe_text
        from training.recipes.translation import translated

        files = _files_named(taken_apart(command).files)
        found = translated(command, home=str(Path.home()), files=files)
        print(recipe_text(found.recipe), end="")
        _tell(found.notes)


def _shelf(folders: list[Path] | None) -> "Shelf":
    from training.recipes.shelf import SHIPPED, Shelf

    return Shelf(folders or (Path.cwd() / "config" / "recipes", *SHIPPED))


def _read(shelf: "Shelf", name: str) -> "tuple[Recipe | None, tuple[str, ...]]":
    from training.recipes.case import Case
    from training.recipes.checks import problems
    from training.recipes.faults import BadRecipe

    try:
        recipe = shelf.read(name)
    except BadRecipe as error:
        return None, error.problems
    return recipe, problems(Case(recipe))


def _folder_of(recipe: "Recipe") -> Path | None:
    """The recipe's own model, where it is a folder of this machine."""
    path = Path(recipe.settings.model.model_name_or_path or "")
    return path if path.is_absolute() and path.is_dir() else None


def _by_hand(recipe: str, method: str) -> "Job":
    """A job that is nobody's, only to be shown."""
    from training.job import Job

    return Job(
        id="by-hand",
        tenant="by-hand",
        model="",
        recipe=recipe,
        created_at=0.0,
        updated_at=0.0,
        method=_method(method),
    )


def _rendered(
    recipe: "Recipe", job: "Job", data: "Prepared", folder: Path, machine: "Machine", model: Path | None
) -> "Rendered":
    from training.recipes.place import Folders
    from training.recipes.rendering import rendered

    place = folder.absolute()
    base_model = "" if model is None else str(model.absolute())
    return rendered(recipe, job, data, Folders(place, place / "output", base_model=base_model), machine)


def _method(name: str) -> "Method":
    from gateway.errors import BadOption

    if name == "supervised":
        return "supervised"
    if name == "dpo":
        return "dpo"
    raise BadOption(f"--method: supervised or dpo, not {name}")


def _content(path: Path) -> bytes:
    from gateway.errors import BadOption

    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise BadOption(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_FILE:
        raise BadOption(f"{path} is larger than {_MAX_FILE} bytes")
    return content


def _files_named(names: tuple[str, ...]) -> dict[str, str]:
    """The texts of files that a command names, of those that are there."""
    paths = {name: Path(name).expanduser() for name in names}
    return {name: _content(path).decode(errors="replace") for name, path in paths.items() if path.is_file()}


def _print_memory(estimate: "Memory", gpu_gib: float | None) -> None:
    from training.recipes.memory import GIB

    print(
        f"# Memory of each GPU, in GiB, estimated ({estimate.trained / 1e6:.1f} million trained parameters):"
    )
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "rest", "total"):
        print(f"#   {part:<12}{getattr(estimate, part) / GIB:7.1f}")
    if gpu_gib is not None and (told := estimate.verdict(gpu_gib)):
        print(f"warning: {told}", file=sys.stderr)


def _print_rendered(found: "Rendered") -> None:
    import shlex

    print(found.yaml.decode(), end="")
    for name, value in found.environment.items():
        print(f"# export {name}={shlex.quote(value)}")
    print(f"# {shlex.join(found.command)}")
    _tell(found.notes)


def _write(found: "Rendered", folder: Path) -> None:
    from gateway.errors import BadOption
    from training.recipes.rendering import RECIPE_FILE

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {RECIPE_FILE: found.yaml, **found.files}.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise BadOption(f"{folder} cannot be written: {error.strerror}") from None


def _tell(notes: tuple[str, ...]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


@contextmanager
def _reported() -> Iterator[None]:
    """What goes wrong on purpose is told in its own words, without a traceback."""
    from gateway.errors import GatewayError
    from training.errors import TrainingError

    try:
        yield
    except (GatewayError, TrainingError) as error:
        print(f"friendo recipes: {error}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
