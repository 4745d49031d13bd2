"""Made-up companion traffic: minutes between messages, hours between sessions.

Medians as published traces and products have them: 30 tokens a message, 120 an answer, both log-normal; a
session of about 23 turns, geometric; most people leave after a few sessions, some never (Pareto); 120 s
between two messages (95 % within ten minutes), hours between sessions; a few characters that everybody wants
(Zipf). The same seed makes the same traffic.
"""

import random
from collections.abc import Iterator
from math import log

import msgspec

from history.sketch import Sized, Sketch, sketch

_LONGEST = 4000
"""Tokens of one message."""


class People(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who talks, and how. Times in seconds, lengths in tokens."""

    dialogues: int = 200
    characters: int = 20
    zipf: float = 1.0
    persona_median: float = 800.0
    persona_sigma: float = 0.3
    user_median: float = 30.0
    user_sigma: float = 0.8
    answer_median: float = 120.0
    answer_sigma: float = 0.6
    session_turns: float = 23.0
    """The mean of a geometric distribution."""
    sessions_alpha: float = 1.1
    """How quickly people are lost: the exponent of a Pareto distribution of sessions, from 1 on."""
    most_sessions: int = 20
    gap_median: float = 120.0
    gap_sigma: float = 1.0
    away_median: float = 7200.0
    away_sigma: float = 0.8
    span_s: float = 14_400.0
    """Everybody's first message comes within so many seconds."""
    begins_at: float = 1_750_000_000.0
    """Unix seconds."""

    def __post_init__(self) -> None:
        if not 1 <= self.dialogues <= 100_000 or self.characters < 1:
            raise ValueError("dialogues must lie between 1 and 100,000, and there is at least one character")
        if min(self.gap_median, self.away_median, self.user_median, self.answer_median) <= 0:
            raise ValueError("medians must be positive")


def generated(people: People, seed: int) -> Iterator[Sketch]:
    """The dialogues, one after the other."""
    shared = random.Random(f"{seed}/characters")
    weights = [1 / (rank + 1) ** people.zipf for rank in range(people.characters)]
    sizes = [length(shared, people.persona_median, people.persona_sigma) for _ in weights]
    for number in range(people.dialogues):
        dice = random.Random(f"{seed}/{number}")
        (rank,) = dice.choices(range(people.characters), weights)
        yield sketch(
            list(_turns(people, dice)),
            persona=sizes[rank],
            persona_text=b"character %d of seed %d" % (rank, seed),
            character=f"character {rank + 1}",
        )


def length(dice: random.Random, median: float, sigma: float) -> int:
    """The tokens of a message, log-normal."""
    return max(1, min(_LONGEST, int(dice.lognormvariate(log(median), sigma))))


def seconds(dice: random.Random, median: float, sigma: float) -> float:
    """A pause, log-normal."""
    return dice.lognormvariate(log(median), sigma)


def _turns(people: People, dice: random.Random) -> Iterator[Sized]:
    now = people.begins_at + dice.random() * people.span_s
    for session in range(min(people.most_sessions, int(dice.paretovariate(people.sessions_alpha)))):
        if session:
            now += seconds(dice, people.away_median, people.away_sigma)
        goes_on = True
        first = True
        while goes_on:
            if not first:
                now += seconds(dice, people.gap_median, people.gap_sigma)
            first = False
            yield Sized(
                length(dice, people.user_median, people.user_sigma),
                length(dice, people.answer_median, people.answer_sigma),
                now,
            )
            goes_on = dice.random() > 1 / people.session_turns
