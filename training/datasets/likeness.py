"""What two dialogues have in common: near duplicates by MinHash, and n-grams shared with an evaluation. Pure.

A bottom-k sketch (Broder 1997): the k smallest hashes of a text's shingles. Of the k smallest of two texts
together, the share that is in both estimates the Jaccard similarity J of their shingle sets, with a standard
error of sqrt(J(1-J)/k). Texts that are alike nearly always share one of their few smallest hashes (the
chance that none of m is shared is about (1-J)^m), so those few are all that is indexed.
"""

import re
from array import array
from collections.abc import Iterable

import xxhash

K = 64
_INDEXED = 6
_SHINGLE = 4
"""Words; of Chinese, Japanese and Korean, characters."""
_MAX_TOKENS = 20_000
_LEAST_SHINGLES = 8
"""Texts with fewer are too short to be called alike by them; equal ones are found as such."""

_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
_hash = xxhash.xxh3_64_intdigest


def tokens(text: str) -> list[str]:
    """Words in lower case; a character where there are no spaces between words. Of texts without
    surrogates.
    """
    return _TOKEN.findall(text.lower())[:_MAX_TOKENS]


def sketch(words: list[str]) -> tuple[int, ...]:
    """The K smallest hashes of the words' shingles, in order; empty where there are too few."""
    columns = [words[at:] for at in range(_SHINGLE)]
    shingles = set(map(" ".join, zip(*columns, strict=False)))
    if len(shingles) < _LEAST_SHINGLES:
        return ()
    return tuple(sorted(map(_hash, map(str.encode, shingles)))[:K])


def alike(one: Iterable[int], other: Iterable[int]) -> float:
    """The estimated Jaccard similarity of two sketched texts, 0..1."""
    first, second = set(one), set(other)
    smallest = sorted(first | second)[:K]
    return (
        sum(hashed in first and hashed in second for hashed in smallest) / len(smallest) if smallest else 0.0
    )


class Seen:
    """The texts so far; tells whether another one is nearly one of them."""

    def __init__(self, least: float) -> None:
        """`least`: from this similarity on."""
        self._least = least
        self._sketches = array("Q")
        self._ends: list[int] = []
        self._places: dict[int, int] = {}

    def is_known(self, hashes: tuple[int, ...]) -> bool:
        """Whether one is alike; else it is remembered."""
        if not hashes:
            return False
        candidates = {place for one in hashes[:_INDEXED] if (place := self._places.get(one)) is not None}
        if any(alike(self._sketch(place), hashes) >= self._least for place in candidates):
            return True
        place = len(self._ends)
        self._sketches.extend(hashes)
        self._ends.append(len(self._sketches))
        for one in hashes[:_INDEXED]:
            self._places.setdefault(one, place)
        return False

    def _sketch(self, place: int) -> "array[int]":
        return self._sketches[self._ends[place - 1] if place else 0 : self._ends[place]]


class Evaluation:
    """The n-grams of an evaluation set: what trains on one of them could not be evaluated by it."""

    def __init__(self, size: int) -> None:
        """`size`: words of an n-gram. Texts that are shorter are not looked for."""
        self._size = size
        self._grams: set[int] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._grams)

    def add(self, text: str) -> None:
        """One text of the evaluation."""
        self._grams.update(self._of(text))

    def has(self, text: str) -> bool:
        """Whether it shares one with the evaluation."""
        return bool(self._grams) and not self._grams.isdisjoint(self._of(text))

    def _of(self, text: str) -> Iterable[int]:
        words = tokens(text)
        columns = [words[at:] for at in range(self._size)]
        return map(_hash, map(str.encode, map(" ".join, zip(*columns, strict=False))))
