"""One publisher's batches in order: what to book, what to ask for again, when it is another publisher.

Engines number their batches from 0 at their start. So a number that goes back is a restart, a number that is
skipped is a loss, and the loss may hide a restart: what is asked for again begins with the last batch that
was booked, and only if that one comes back byte for byte are the others its successors. After the connection
was gone even the very next number proves nothing, and is treated as if it had been skipped.

Pure: the edge brings messages and the time, asks for replays, and brings what came of them.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
import xxhash

from gateway.nodes.kv_events import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    Frame,
    KvEvent,
    Malformed,
    read_batch,
)
from gateway.routing.retention import Retention

MAX_REPLAY = 8192
"""Batches. Engines keep 10,000; who missed more starts anew from here."""
JOIN_REPLAY = 2048
"""Batches asked for at first sight: the past is worth a look, not a long one."""
_MARKS = 256
_NAMES = 8
_DEVICES = frozenset({None, "GPU"})
_CPU, _BEYOND = 2, 4


class Ask(msgspec.Struct, frozen=True):
    """Ask the publisher for its batches from `start` on; those from `stop` on are here already."""

    start: int
    stop: int


@dataclass(slots=True)
class Counts:
    """What came, since this gateway follows the node. Blocks are counted once per event that names them."""

    batches: int = 0
    stored_blocks: int = 0
    removed_blocks: int = 0
    clears: int = 0
    repeats: int = 0
    gaps: int = 0
    gaps_filled: int = 0
    restarts: int = 0
    malformed: int = 0
    """Messages and events that could not be read."""
    unknown: int = 0
    unknown_types: set[str] = field(default_factory=set)
    """Some of the types of events that are not known here."""


class KvSequence:
    """Follows one node's batches and books them into its `Retention`.

    `take` a message; if it returns an `Ask`, bring what the publisher repeats (or nothing) to `fill` before
    the next one.
    """

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self.counts = Counts()
        self._last: int | None = None
        self._marks: OrderedDict[int, int] = OrderedDict()
        self._is_linked = True
        self._is_sure = True
        self._waiting: tuple[Frame, float] | None = None
        self._offset = 0.0
        self._booked_at = -math.inf
        self._group: int | None = None
        self._is_group_full = False

    @property
    def last(self) -> int | None:
        """The number of the last batch booked; None before the first."""
        return self._last

    def take(self, frame: Frame, now: float) -> Ask | None:
        """Book a live message, or say what has to be asked for first."""
        if self._last is not None and frame.seq <= self._last:
            if self._marks.get(frame.seq) == _mark(frame):
                self.counts.repeats += 1
                return None
            self._restart(now)
        if self._last is None:
            if frame.seq == 0:
                self._start(now)
                self._book(frame, read_batch(frame.payload), now)
                return None
            self._waiting = (frame, now)
            return Ask(start=max(0, frame.seq - JOIN_REPLAY), stop=frame.seq)
        if frame.seq == self._last + 1 and self._is_sure:
            self._book(frame, read_batch(frame.payload), now)
            return None
        self.counts.gaps += 1
        self._waiting = (frame, now)
        is_far = frame.seq - self._last > MAX_REPLAY
        return Ask(start=frame.seq - JOIN_REPLAY if is_far else self._last, stop=frame.seq)

    def fill(self, frames: Iterable[Frame], now: float) -> Iterator[None]:
        """Book what was asked for, as far as it came, and the message that waited; one batch a step.

        Has to be run to its end. `frames` may lack some, repeat some, and be in any order.
        """
        assert self._waiting is not None
        waiting, taken_at = self._waiting
        self._waiting = None
        got = {frame.seq: frame for frame in frames if frame.seq < waiting.seq}
        start = waiting.seq
        while start - 1 in got:
            start -= 1
        live = read_batch(waiting.payload)
        if isinstance(live, Batch):
            self._offset = taken_at - live.ts
        missing = self._continue(got, start, now)
        for seq in range(missing, waiting.seq):
            batch = read_batch(got[seq].payload)
            self._book(got[seq], batch, self._past(batch, now))
            yield
        self._book(waiting, live, now)
        yield

    def disconnected(self, now: float) -> None:
        """The connection to the publisher ended; whether the publisher did will be seen."""
        self._is_linked = False
        if self._last is not None:
            self._is_sure = False
            self.retention.lost(now)

    def connected(self) -> None:
        """There is a connection again. What came before the next message is still to be proven."""
        self._is_linked = True
        if self._is_sure:
            self.retention.regained()

    def unreadable(self) -> None:
        """A message came that has no number: what it was, the numbers of the others will tell."""
        self.counts.malformed += 1

    def _continue(self, got: dict[int, Frame], start: int, now: float) -> int:
        """Judge what was repeated, tell the retention, and say from which number on to book."""
        proof = None if self._last is None else got.get(self._last)
        if proof is not None and self._last is not None and _mark(proof) != self._marks[self._last]:
            self._restart(now)
        if self._last is None:
            self._begin(got, start, now)
            return start
        if proof is not None and start <= self._last:
            self.counts.gaps_filled += 1
            self._trust()
            return self._last + 1
        self.retention.doubt(now)
        self.retention.joined(now)
        self._trust()
        return start

    def _begin(self, got: dict[int, Frame], start: int, now: float) -> None:
        """A publisher seen for the first time, with its history from `start` on, if there is any."""
        at = self._past(read_batch(got[start].payload), now) if start in got else now
        if start == 0:
            self._start(at)
        else:
            self.retention.joined(at)
            self._trust()

    def _start(self, at: float) -> None:
        """The engine began at `at`; a restart has said so already."""
        if not self.counts.restarts:
            self.retention.cleared(at)
        self._trust()

    def _trust(self) -> None:
        """From here on the next number is the next batch, as long as the connection holds."""
        if self._is_linked:
            self._is_sure = True
            self.retention.regained()

    def _restart(self, now: float) -> None:
        self.counts.restarts += 1
        self.retention.cleared(now)
        self._last = None
        self._marks.clear()
        self._booked_at = -math.inf
        self._group, self._is_group_full = None, False

    def _past(self, batch: Batch | Malformed, now: float) -> float:
        """When a repeated batch was published, by this gateway's clock: not before the one booked last."""
        said = batch.ts + self._offset if isinstance(batch, Batch) else now
        return min(now, max(self._booked_at, said))

    def _book(self, frame: Frame, batch: Batch | Malformed, at: float) -> None:
        self._last = frame.seq
        self._marks[frame.seq] = _mark(frame)
        if len(self._marks) > _MARKS:
            self._marks.popitem(last=False)
        self._booked_at = at = max(at, self._booked_at)
        self.counts.batches += 1
        if isinstance(batch, Malformed):
            self.counts.malformed += 1
            self.retention.doubt(at)
            return
        if batch.unread:
            self.counts.malformed += batch.unread
            self.retention.doubt(at)
        if batch.unknown:
            self._note_unknown(batch)
        for event in batch.events:
            self._apply(event, at)

    def _apply(self, event: KvEvent, at: float) -> None:
        match event:
            case BlockStored():
                if self._is_followed(event, at):
                    self.counts.stored_blocks += len(event.block_hashes)
                    tier = _tier(event.medium)
                    self.retention.stored(event.block_hashes, event.parent_block_hash, at, tier)
            case BlockRemoved():
                if event.group_idx is None or self._group is None or event.group_idx == self._group:
                    self.counts.removed_blocks += len(event.block_hashes)
                    self.retention.removed(event.block_hashes, at, _tier(event.medium))
            case AllBlocksCleared():
                self.counts.clears += 1
                self.retention.cleared(at)

    def _is_followed(self, event: BlockStored, at: float) -> bool:
        """Whether the event's group of layers is the one that is followed.

        In hybrid models the groups share hashes and evict apart. One with full attention is followed as soon
        as there is one: windowed layers drop blocks that are minutes young.
        """
        if event.group_idx is None or event.group_idx == self._group:
            return True
        is_full = _is_full(event.kv_cache_spec_kind)
        if self._group is not None and (self._is_group_full or not is_full):
            return False
        if self._group is not None:
            self.retention.joined(at)
        self._group, self._is_group_full = event.group_idx, is_full
        return True

    def _note_unknown(self, batch: Batch) -> None:
        self.counts.unknown += len(batch.unknown)
        room = _NAMES - len(self.counts.unknown_types)
        self.counts.unknown_types.update(sorted(set(batch.unknown))[: max(0, room)])


def _mark(frame: Frame) -> int:
    """Tells one batch from another of the same number: a batch carries its time."""
    return xxhash.xxh3_64_intdigest(frame.payload)


def _tier(medium: str | None) -> int:
    if medium in _DEVICES:
        return 1
    return _CPU if medium and medium.startswith("CPU") else _BEYOND


def _is_full(kind: str | None) -> bool:
    return kind is None or (("full" in kind or "mla" in kind) and "sliding" not in kind)
