"""What can be wrong with a recipe."""

from training.errors import RequestFault


class BadRecipe(RequestFault):
    """It would fail or do harm; every problem is named, with what to do about it."""

    def __init__(self, name: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"recipe {name}: " + "; ".join(problems))
        self.name = name
        self.problems = problems


class RecipeMissing(RequestFault):
    """There is no recipe of this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no recipe {name}; there are: {', '.join(known) or 'none'}")
        self.name = name


class BadCommand(RequestFault):
    """It cannot be translated into a recipe."""


class ShapeUnknown(RequestFault):
    """A model's config.json does not say what the estimate needs."""
