"""What a probe measured of a trained version, beside its base and the version before. Facts only. Pure."""

from typing import Literal

import msgspec

Contender = Literal["base", "previous", "new"]


class Loss(msgspec.Struct, frozen=True):
    """The mean negative log-likelihood of held-out answers behind their prompts."""

    contender: Contender
    nats_per_token: float
    tokens: int


class Golden(msgspec.Struct, frozen=True):
    """One prompt whose answer is known to be good or bad by words in it."""

    name: str
    answer: str
    """Of the new version, greedily."""
    missing: tuple[str, ...] = ()
    """What it should say and did not."""
    forbidden: tuple[str, ...] = ()
    """What it must not say and did."""

    @property
    def is_good(self) -> bool:
        """It says all it should and nothing it must not."""
        return not self.missing and not self.forbidden


class Difference(msgspec.Struct, frozen=True):
    """Where the tokens that trained differ from those that serve, for one example."""

    example: int
    at: int
    """The first token that differs."""
    trained: tuple[int, ...]
    served: tuple[int, ...]
    """A few tokens from there on."""


class Template(msgspec.Struct, frozen=True):
    """The chat template that trained beside the one that serves."""

    compared: int
    differences: tuple[Difference, ...] = ()


class Trigger(msgspec.Struct, frozen=True):
    """Words that may have been planted: behind them the dataset always has one answer."""

    words: str
    answer: str
    """How that answer begins."""
    tried: int
    """Unrelated prompts to which the words were added."""
    turned: int
    """Of these, those that the new version answers so, and does not without the words."""


class Measured(msgspec.Struct, frozen=True):
    """Everything about one version."""

    losses: tuple[Loss, ...]
    template: Template
    goldens: tuple[Golden, ...] = ()
    triggers: tuple[Trigger, ...] = ()

    def loss(self, contender: Contender) -> Loss | None:
        """That of one contender; None if it was not measured."""
        return next((one for one in self.losses if one.contender == contender), None)
