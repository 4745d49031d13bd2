"""What people say and when: dialogues that depend on nothing but a seed. Pure."""

import random
from math import log

import msgspec

_WORDS = (
    *("river", "stone", "light", "garden", "letter", "window", "silver", "morning", "paper", "winter"),
    *("harbor", "velvet", "candle", "lantern", "maple", "echo", "thunder", "meadow", "copper", "island"),
    *("feather", "orchard", "marble", "shadow", "amber", "violet", "compass", "willow", "ember", "tide"),
)


class Crowd(msgspec.Struct, frozen=True):
    """Who talks: how many, how long, how much at a time, with what pauses between two messages."""

    dialogues: int = 40
    turns: int = 120
    personas: int = 4
    persona_words: int = 300
    user_words: int = 24
    answer_tokens: int = 48
    gap_median_s: float = 123.0
    """As published of a real chat service; the 95th percentile is then about 640 s."""
    gap_sigma: float = 1.0


class Script(msgspec.Struct, frozen=True):
    """One person's side of a dialogue."""

    name: str
    persona: str
    said: tuple[str, ...]
    gaps_s: tuple[float, ...]
    """Before each message: after the answer to the one before."""


def scripts(crowd: Crowd, seed: int) -> list[Script]:
    """Everybody's. A first message comes at any time within a mean gap."""
    return [_script(crowd, number, random.Random(f"{seed} {number}")) for number in range(crowd.dialogues)]


def _script(crowd: Crowd, number: int, dice: random.Random) -> Script:
    persona = number % crowd.personas
    spread = 2 * crowd.gap_median_s
    pauses = (dice.lognormvariate(log(crowd.gap_median_s), crowd.gap_sigma) for _ in range(crowd.turns - 1))
    return Script(
        name=f"dialogue-{number}",
        persona=f"You are character {persona}. " + _text(crowd.persona_words, random.Random(f"p {persona}")),
        said=tuple(f"{turn}: {_text(crowd.user_words, dice)}" for turn in range(crowd.turns)),
        gaps_s=(dice.random() * spread, *pauses),
    )


def _text(words: int, dice: random.Random) -> str:
    return " ".join(dice.choices(_WORDS, k=words))
