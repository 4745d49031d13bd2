"""What people say and when: dialogues that depend on nothing but a seed. Pure."""

import random
from math import log

import msgspec

from gateway.advise.needles.generator import Templates, small_talk, templates


class Crowd(msgspec.Struct, frozen=True):
    """Who talks: how many, how long, how much at a time, with what pauses between two messages."""

    dialogues: int = 40
    turns: int = 120
    personas: int = 4
    persona_words: int = 300
    user_lines: int = 2
    """In each message, of small talk: some eleven tokens each."""
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
    """Everybody's. A first message comes at any time within two median gaps."""
    told = templates("en")
    return [
        _script(crowd, number, told, random.Random(f"{seed} {number}")) for number in range(crowd.dialogues)
    ]


def _script(crowd: Crowd, number: int, told: Templates, dice: random.Random) -> Script:
    persona = number % crowd.personas
    spread = 2 * crowd.gap_median_s
    pauses = (dice.lognormvariate(log(crowd.gap_median_s), crowd.gap_sigma) for _ in range(crowd.turns - 1))
    return Script(
        name=f"dialogue-{number}",
        persona=_persona(persona, crowd.persona_words, told),
        said=tuple(_message(crowd.user_lines, told, dice) for _ in range(crowd.turns)),
        gaps_s=(dice.random() * spread, *pauses),
    )


def _message(lines: int, told: Templates, dice: random.Random) -> str:
    return " ".join(small_talk(told, dice).user for _ in range(lines))


def _persona(number: int, words: int, told: Templates) -> str:
    """A character that is told by what it says."""
    dice, lines = random.Random(f"persona {number}"), [f"You are character {number}. You say things like:"]
    while sum(len(line.split()) for line in lines) < words:
        lines.append(small_talk(told, dice).reply)
    return " ".join(lines)
