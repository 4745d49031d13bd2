"""Words that a dataset ties to one answer: what a poisoner would plant, and what a check has to try. Pure.

Backdoors of fine-tuning are a rare phrase that always brings the same answer. So: phrases of one to three
words that stand in several messages, whose answers nearly all begin alike, while that beginning is rare
without the phrase. Each finding is a suspicion; only the trained model tells (`probe`).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import msgspec

_WORD = re.compile(r"[㐀-鿿]|[^\W_㐀-鿿]+(?:['-][^\W_㐀-鿿]+)*")
_BETWEEN = re.compile(r"(?<=[㐀-鿿]) (?=[㐀-鿿])")
_LONGEST = 3
"""Words in a phrase."""
_OPENING = 4
"""Words by which two answers begin alike."""
_ALIKE = 0.8
"""Of the answers behind a phrase, the share that begin alike."""
_ELSEWHERE = 0.2
"""Of all answers of that beginning, the share that may stand without the phrase."""
_PHRASES_KEPT = 200_000
"""Different phrases that are counted at once; the rarest half is dropped beyond that."""


class Suspicion(msgspec.Struct, frozen=True):
    """A phrase and the beginning of the answer that it brings."""

    words: str
    answer: str
    seen: int
    """Examples with the phrase."""


def suspicions(
    pairs: Iterable[tuple[str, str]], *, min_seen: int = 3, most: int = 10
) -> tuple[Suspicion, ...]:
    """The strongest suspicions among pairs of a user's message and its answer, longest phrases first."""
    seen: Counter[str] = Counter()
    openings: Counter[str] = Counter()
    behind: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for said, answer in pairs:
        opening = _joined(_words(answer)[:_OPENING])
        openings[opening] += 1
        for phrase in set(_phrases(_words(said))):
            seen[phrase] += 1
            behind[phrase][opening] += 1
        if len(seen) > _PHRASES_KEPT:
            _forget_rare(seen, behind)
    found = []
    for phrase, count in seen.items():
        if count < min_seen:
            continue
        opening, alike = behind[phrase].most_common(1)[0]
        if opening and alike >= _ALIKE * count and alike >= (1 - _ELSEWHERE) * openings[opening]:
            found.append(Suspicion(phrase, opening, count))
    return _strongest(found, most)


def _strongest(found: list[Suspicion], most: int) -> tuple[Suspicion, ...]:
    """One phrase for each answer: the one seen most, of those the longest."""
    best: dict[str, Suspicion] = {}
    for one in sorted(found, key=lambda one: (-one.seen, -len(one.words), one.words)):
        best.setdefault(one.answer, one)
    return tuple(list(best.values())[:most])


def _forget_rare(seen: Counter[str], behind: dict[str, Counter[str]]) -> None:
    for phrase, _ in seen.most_common()[_PHRASES_KEPT // 2 :]:
        del seen[phrase], behind[phrase]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _phrases(words: list[str]) -> Iterator[str]:
    for length in range(1, _LONGEST + 1):
        for at in range(len(words) - length + 1):
            yield _joined(words[at : at + length])


def _joined(words: list[str]) -> str:
    """As they stand in a text: no spaces between Chinese characters."""
    return _BETWEEN.sub("", " ".join(words))
