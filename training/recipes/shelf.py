"""Recipes by name: files `<name>.yaml` in folders, the first folder that has one counts."""

import re
from collections.abc import Sequence
from pathlib import Path

from training.recipes.faults import BadRecipe, RecipeMissing
from training.recipes.recipe import Recipe, read_recipe
from training.recipes.yaml_lines import MAX_BYTES

_AROUND = Path(__file__).parents[2]
SHIPPED = (_AROUND / "config" / "recipes", _AROUND / "gateway" / "config" / "recipes")
"""Where the recipes of this program are: in a source tree, and installed."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Shelf:
    """The recipes in some folders. Read anew at every call: an owner edits them while workers run."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    def names(self) -> tuple[str, ...]:
        """In alphabetical order."""
        found = {path.stem for folder in self._folders for path in folder.glob("*.yaml")}
        return tuple(sorted(name for name in found if _NAME.fullmatch(name)))

    def read(self, name: str) -> Recipe:
        """The recipe of this name. Raises RecipeMissing and BadRecipe."""
        return read_recipe(self.text(name), name=name)

    def text(self, name: str) -> str:
        """Its file's text. Raises RecipeMissing; BadRecipe where it is no text or too long."""
        if _NAME.fullmatch(name):  # a name never leads out of the folders
            for folder in self._folders:
                path = folder / f"{name}.yaml"
                if path.is_file():
                    return _text(path, name)
        raise RecipeMissing(name, self.names())


def _text(path: Path, name: str) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadRecipe(name, (f"is larger than {MAX_BYTES} bytes",))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BadRecipe(name, (f"is no UTF-8 text: {error.reason} at byte {error.start}",)) from None
