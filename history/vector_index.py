"""The vectors of one conversation's archived turns, searchable, in process memory.

One byte per dimension, all of them in one block of bytes. A search compares a question with every turn: of
10,000 with 1,024 dimensions in less than a millisecond with the processor's own dot products of bytes
(numkong), so it runs on the event loop, as the search by words does.
"""

from collections.abc import Sequence

import numkong

from history.meaning import STAMP_BYTES, farthest, nearest, quantised, stamp


class VectorIndex:
    """Vectors of turns `start` to `stop`, of those up to `seen` that were read. Not for several threads."""

    def __init__(self, *, start: int = 0) -> None:
        self.start = start
        self.seen = start
        self._stamps = bytearray()
        self._rows = bytearray()
        self._dimensions = 0

    @property
    def stop(self) -> int:
        """Every turn from `start` to here has a vector."""
        return self.start + (len(self._rows) // self._dimensions if self._dimensions else 0)

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(self._rows) + len(self._stamps)

    def saw(self, digests: bytes) -> None:
        """The turn that comes next has these digests: only a vector of such a turn is taken for it."""
        self._stamps += stamp(digests)
        self.seen += 1

    def take(self, start: int, records: Sequence[bytes]) -> None:
        """Take what is lacking and fits of the vectors of turns from `start` on.

        What comes behind one that was made of another turn is left out. Turns before the first vector that
        there is are out of reach.
        """
        if start > self.start and self.stop == self.start:
            self._forget(min(start, self.seen) - self.start)
        for record in records[max(0, self.stop - start) :] if start <= self.stop else ():
            at = (self.stop - self.start) * STAMP_BYTES
            size = len(record) - STAMP_BYTES
            is_its_own = self._stamps[at : at + STAMP_BYTES] == record[:STAMP_BYTES]
            if not is_its_own or size <= 0:
                return
            if self._dimensions != size:
                # The first one, or the model became another under its name: those it made before are no use.
                is_first = not self._rows
                self._rows.clear()
                self._dimensions = size
                if not is_first:
                    return
            self._rows += record[STAMP_BYTES:]

    def keep_newest(self, most: int) -> None:
        """Let the oldest turns go beyond so many."""
        if self.seen - self.start > most:
            self._forget(self.seen - self.start - most)

    def close(self) -> None:
        """Give the memory back. The index is of no use afterwards."""
        self._rows.clear()
        self._stamps.clear()

    def _forget(self, count: int) -> None:
        del self._stamps[: count * STAMP_BYTES]
        del self._rows[: count * self._dimensions]
        self.start += count

    def search(self, vector: list[float], *, cut: int, stands_out: float) -> list[int]:
        """The positions before the cut of turns whose meaning stands out, the nearest first.

        None do where the vector has another length than theirs: they will be made anew.
        """
        count = min(cut, self.stop) - self.start
        if count <= 0 or len(vector) != self._dimensions:
            return []
        distances = self._distances(quantised(vector), count)
        total, squares = numkong.moments(distances)
        limit = farthest(count, total, squares, stands_out)
        far = memoryview(distances).cast("B").cast("d").tolist()
        return nearest([(one, at) for at, one in enumerate(far, self.start) if one <= limit])

    def _distances(self, query: bytes, count: int) -> numkong.Tensor:
        """1 less the cosine of each turn's angle with the question."""
        size = self._dimensions
        with memoryview(self._rows) as rows:
            table = rows[: count * size].cast("b", shape=(count, size))
            asked = memoryview(query).cast("b", shape=(1, size))
            found = numkong.cdist(asked, table, "angular")
        assert isinstance(found, numkong.Tensor)
        return found
