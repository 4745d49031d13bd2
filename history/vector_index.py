"""The vectors of one conversation's archived turns, searchable, in process memory.

One byte per dimension, all of them in one block of bytes. A search compares a question with every turn: of
10,000 with 1,024 dimensions in less than a millisecond with the processor's own dot products of bytes
(numkong), so it runs on the event loop, as the search by words does.
"""

from math import sqrt

import numkong

from history.meaning import STAMP_BYTES, can_stand_out, nearest, quantised


class VectorIndex:
    """The vectors of turns `start` to `stop`; every turn between has one. Not for several threads."""

    def __init__(self, *, start: int = 0) -> None:
        self.start = start
        self.stop = start
        self._dimensions = 0
        self._rows = bytearray()

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(self._rows)

    def add(self, position: int, record: bytes) -> bool:
        """Take the vector of the turn that comes next; False, and nothing happens, if it does not fit."""
        dimensions = len(record) - STAMP_BYTES
        if position != self.stop or dimensions <= 0 or self._dimensions not in (0, dimensions):
            return False
        self._dimensions = dimensions
        self._rows += record[STAMP_BYTES:]
        self.stop += 1
        return True

    def keep_newest(self, most: int) -> None:
        """Let the oldest go beyond so many."""
        more = self.stop - self.start - most
        if more > 0:
            del self._rows[: more * self._dimensions]
            self.start += more

    def search(self, vector: list[float], *, cut: int, stands_out: float) -> list[int]:
        """The positions before the cut of turns whose meaning stands out, the nearest first.

        Raises `ValueError` for a vector of another length than theirs.
        """
        count = min(cut, self.stop) - self.start
        if count <= 0:
            return []
        if len(vector) != self._dimensions:
            raise ValueError(f"a question has {len(vector)} dimensions, the turns have {self._dimensions}")
        distances = self._distances(quantised(vector), count)
        total, squares = numkong.moments(distances)
        mean = total / count
        deviation = sqrt(max(0.0, squares / count - mean * mean))
        if not can_stand_out(count, deviation):
            return []
        limit = mean - stands_out * deviation
        far = memoryview(distances).tolist()[0]
        return nearest([(one, at) for at, one in enumerate(far, self.start) if one <= limit])

    def _distances(self, query: bytes, count: int) -> numkong.Tensor:
        """1 less the cosine of each turn's angle with the question."""
        size = self._dimensions
        with memoryview(self._rows) as rows:
            table = rows[: count * size].cast("b", shape=(count, size))
            asked = memoryview(query).cast("b", shape=(1, size))
            return numkong.cdist(asked, table, "angular")
