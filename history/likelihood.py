"""How much the turns in a prompt help: the likelihood of the reply that was really given, by window. Pure.

For each held-out reply and each number of turns N, a model told the log-likelihood of that reply behind the
persona and the last N turns. Every reply is scored under every N, so differences are paired. The *knee* is
the least N whose mean, per token, lies within a tolerance of the best one's: more turns no longer pay.

Intervals are of a bootstrap over dialogues, since replies of one dialogue are alike. Its dice are hashes of a
seed: the same replies give the same interval.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import xxhash

TOLERANCE = 0.01
"""Nats per token; e^0.01 is one per cent of a token's probability."""
RESAMPLES = 1000
_TAIL = 0.025
_COVERAGE = 0.7
_LEAST_DIALOGUES = 4


class Scored(msgspec.Struct, frozen=True):
    """One reply: the log-likelihood of all its tokens, in nats, by how many turns stood before it."""

    dialogue: str
    turn: int
    character: str
    tokens: int
    nats: dict[int, float]


class Point(msgspec.Struct, frozen=True):
    """The mean log-likelihood per token under one N, and how far it is from the best."""

    turns: int
    mean: float
    low: float
    high: float
    behind: float
    """Nats per token that it lacks to the best; 0 for the best."""
    behind_low: float
    behind_high: float
    """The interval of that difference: paired, and so narrower than those of the means."""


class Curve(msgspec.Struct, frozen=True):
    """Quality against N. Intervals are of 95 %."""

    character: str
    """Empty: of all."""
    replies: int
    tokens: int
    dialogues: int
    points: tuple[Point, ...]
    knee: int
    knee_low: int
    knee_high: int
    tolerance: float

    @property
    def is_at_the_end(self) -> bool:
        """Whether the longest window that was tried is the knee: more may still help."""
        return self.knee == self.points[-1].turns


def curves(
    scored: Sequence[Scored], *, tolerance: float = TOLERANCE, seed: int = 0, least_replies: int = 8
) -> list[Curve]:
    """The curve of all replies, then of each character that has enough; none where there are too few."""
    by_character: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        by_character[one.character].append(one)
    found = [_curve("", scored, tolerance, seed)]
    if len(by_character) > 1:
        found += [
            _curve(name, some, tolerance, seed)
            for name, some in sorted(by_character.items(), key=lambda item: (-len(item[1]), item[0]))
            if name and len(some) >= least_replies
        ]
    return [one for one in found if one is not None]


def _curve(character: str, scored: Sequence[Scored], tolerance: float, seed: int) -> Curve | None:
    turns = _comparable(scored)
    whole = [one for one in scored if one.tokens and turns and all(n in one.nats for n in turns)]
    sums = _by_dialogue(whole, turns)
    if len(sums) < _LEAST_DIALOGUES:
        return None
    means = _means(list(sums.values()))
    best = max(means)
    drawn = [_means(sample) for sample in _resampled(list(sums.values()), f"{seed}/{character}")]
    knees = sorted(_knee(turns, sample, tolerance) for sample in drawn)
    top = means.index(best)
    return Curve(
        character=character,
        replies=len(whole),
        tokens=sum(one.tokens for one in whole),
        dialogues=len(sums),
        points=tuple(_point(at, turns, means, drawn, top) for at in range(len(turns))),
        knee=_knee(turns, means, tolerance),
        knee_low=knees[int(_TAIL * len(knees))],
        knee_high=knees[min(len(knees) - 1, int((1 - _TAIL) * len(knees)))],
        tolerance=tolerance,
    )


def _comparable(scored: Sequence[Scored]) -> list[int]:
    """The Ns under which most replies have a score: long ones may not fit the model's context."""
    every = sorted({turns for one in scored for turns in one.nats})
    return [n for n in every if sum(n in one.nats for one in scored) >= _COVERAGE * len(scored)]


def _by_dialogue(scored: Iterable[Scored], turns: Sequence[int]) -> Mapping[str, tuple[int, list[float]]]:
    """For each dialogue its tokens, and the sums of their log-likelihoods by N."""
    sums: dict[str, tuple[int, list[float]]] = {}
    for one in scored:
        tokens, nats = sums.get(one.dialogue, (0, [0.0] * len(turns)))
        sums[one.dialogue] = (
            tokens + one.tokens,
            [so_far + one.nats[n] for so_far, n in zip(nats, turns, strict=True)],
        )
    return sums


def _means(sums: Sequence[tuple[int, list[float]]]) -> list[float]:
    tokens = sum(count for count, _ in sums)
    return [sum(column) / tokens for column in zip(*(nats for _, nats in sums), strict=True)]


def _resampled(sums: Sequence[tuple[int, list[float]]], seed: str) -> Iterable[list[tuple[int, list[float]]]]:
    for round_ in range(RESAMPLES):
        yield [
            sums[xxhash.xxh3_64_intdigest(f"{seed}/{round_}/{at}".encode()) % len(sums)]
            for at in range(len(sums))
        ]


def _knee(turns: Sequence[int], means: Sequence[float], tolerance: float) -> int:
    best = max(means)
    return next(n for n, mean in zip(turns, means, strict=True) if best - mean <= tolerance)


def _point(
    at: int, turns: Sequence[int], means: Sequence[float], drawn: Sequence[list[float]], top: int
) -> Point:
    values = sorted(sample[at] for sample in drawn)
    lacks = sorted(sample[top] - sample[at] for sample in drawn)
    last = len(values) - 1
    upper = min(last, int((1 - _TAIL) * len(values)))
    return Point(
        turns=turns[at],
        mean=means[at],
        low=values[int(_TAIL * len(values))],
        high=values[upper],
        behind=means[top] - means[at],
        behind_low=lacks[int(_TAIL * len(lacks))],
        behind_high=lacks[upper],
    )
