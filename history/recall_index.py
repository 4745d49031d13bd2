"""The words of one conversation's archived turns, searchable: which turn has which word, in process memory.

For every stem the turns that have it, in order, four bytes each; the passages beside them as they are to be
quoted. A search is a few lookups, so it runs where it is asked for: in the time that a hop to a thread takes.
What a match is worth is decided in `recall`.
"""

from array import array
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from history.passage import Passage
from history.recall import Corpus, Found, RecallRule, Sentence, Term, Wanted, cleared, fitted, wanted
from history.stem import stem
from history.words import words

_STEM_BYTES = 270
"""A stem with the list of its turns, beside what is in the list."""
_POSTING_BYTES = 6
_PASSAGE_BYTES = 150

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Passage).decode


class RecallIndex:
    """Turns `start` to `stop` of one conversation. Not for several threads."""

    def __init__(self, *, start: int = 0) -> None:
        self.start = start
        self.stop = start
        self.size = 0
        """About how many bytes it takes."""
        self._words = 0
        self._turns: defaultdict[str, array[int]] = defaultdict(partial(array, "I"))
        """By stem, ascending."""
        self._said: deque[tuple[int, bytes]] = deque()
        """How many words a turn has, and its passage."""

    def add(self, passages: Iterable[Passage], *, max_turns: int) -> None:
        """Add the turns from `stop` on; those it has already are passed over.

        The oldest beyond `max_turns` go. Raises `ValueError` if a turn is missing between.
        """
        for passage in passages:
            if passage.position > self.stop:
                raise ValueError(f"turn {self.stop} comes next, not {passage.position}")
            if passage.position == self.stop:
                self._append(passage)
        while self.stop - self.start > max_turns:
            self._remove_first()

    def search(
        self, asked: Sequence[Sentence], rule: RecallRule, *, cut: int, near: Sequence[int] = ()
    ) -> tuple[Passage, ...]:
        """The passages before the cut that the sentences refer to, in the order they were said.

        `near`: the positions of turns that are near by their meaning, the nearest first.
        """
        corpus = Corpus(turns=self.stop - self.start, words=self._words)
        sought = wanted(asked, self._terms(asked), corpus)
        near = [position for position in near if self.start <= position < self.stop]
        if not sought.stems and not near:
            return ()
        matches = cleared(sought, self._postings(sought, cut), rule)
        positions = {match.position for match in matches}.union(near)
        found = {position: self._found(position) for position in positions}
        return fitted(matches, found, sought, rule, cut=cut, near=near)

    def close(self) -> None:
        """Give the memory back. The index is of no use afterwards."""
        self._turns.clear()
        self._said.clear()
        self.size = 0

    def _append(self, passage: Passage) -> None:
        said = words(passage.text())
        blob = _encode(passage)
        stems, known = set(map(stem, said)), len(self._turns)
        for one in stems:
            self._turns[one].append(passage.position)
        self._said.append((len(said), blob))
        self._words += len(said)
        self.size += (len(self._turns) - known) * _STEM_BYTES
        self.size += len(stems) * _POSTING_BYTES + len(blob) + _PASSAGE_BYTES
        self.stop += 1

    def _remove_first(self) -> None:
        count, blob = self._said.popleft()
        stems = set(map(stem, words(_decode(blob).text())))
        for one in stems:
            turns = self._turns[one]
            turns.pop(0)
            if not turns:
                del self._turns[one]
                self.size -= _STEM_BYTES
        self._words -= count
        self.size -= len(stems) * _POSTING_BYTES + len(blob) + _PASSAGE_BYTES
        self.start += 1

    def _terms(self, asked: Sequence[Sentence]) -> list[Term]:
        """The words with their stems, and how many turns have them."""
        every = dict.fromkeys(word for sentence in asked for word in sentence.words)
        return [
            Term(word=word, stem=(one := stem(word)), turns=len(self._turns.get(one, ()))) for word in every
        ]

    def _postings(self, sought: Wanted, cut: int) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for one in sought.stems:
            turns = self._turns[one]
            for position in turns[: bisect_left(turns, cut)]:
                found.setdefault(position, []).append(one)
        return found

    def _found(self, position: int) -> Found:
        count, blob = self._said[position - self.start]
        return Found(_decode(blob), count)
