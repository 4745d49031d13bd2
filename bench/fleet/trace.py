"""A recorded hour of real chats as traffic: Mooncake's conversation trace (FAST'25), prompts as block hashes.

The trace names no dialogues. A request follows the latest one whose whole blocks its own begin with; that
gives the 3,975 follow-ups and pauses (median 126 s) that others found in it. Answers have no hashes, so the
blocks of an answer are those that the first follow-up has there; an answer without follow-up is nobody's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec

from bench.fleet.prompt import Extent, Prompt, Request
from bench.fleet.simulation import Arrival

BLOCK = 512


class Line(msgspec.Struct, frozen=True):
    """One request of the trace: when (ms), how long, and its blocks; the last one may not be full."""

    timestamp: int
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


@dataclass(slots=True)
class _Recorded:
    """A request and what is known of its dialogue."""

    line: Line
    parent: int = -1
    heir: int = -1
    """Its first follow-up."""
    root: int = -1
    extents: tuple[Extent, ...] = ()
    answer: Extent = (0, 0)
    links: list[bytes] = field(default_factory=list)

    def full(self) -> int:
        return min(len(self.line.hash_ids), self.line.input_length // BLOCK)

    def complete(self) -> int:
        """Full blocks of prompt and answer."""
        return (self.line.input_length + self.line.output_length - 1) // BLOCK


class Trace:
    """The recorded requests at their times; sessions are known to policies that ask for one."""

    def __init__(
        self, lines: Sequence[Line], *, with_conversations: bool, measured_from: float = 600.0
    ) -> None:
        self._with_conversations = with_conversations
        self._measured_from = measured_from
        self._requests = _reconstructed(lines)

    def begin(self) -> Iterable[Arrival]:
        """All of it."""
        return [(one.line.timestamp / 1000, one) for one in self._requests]

    def request(self, source: object, now: float) -> Request:
        """A recorded request."""
        assert isinstance(source, _Recorded)
        reusable = before = 0
        if source.parent >= 0:
            parent = self._requests[source.parent]
            reusable = parent.complete()
            before = min(parent.line.input_length + parent.line.output_length, source.line.input_length - 1)
        prompt = Prompt(
            tokens=source.line.input_length,
            extents=source.extents,
            answer=source.answer[0],
            links=source.links,
            heads=((b"system", BLOCK),),
            answered=b"a" + source.links[-1],
            reusable=min(reusable, source.full()),
            before=before,
            shared=1,
        )
        return Request(
            prompt=prompt,
            output_tokens=source.line.output_length,
            key=source.root,
            conversation=source.root if self._with_conversations else -1,
            is_measured=now >= self._measured_from,
            source=source,
        )

    def ended(self, _: Request, __: float) -> Iterable[Arrival]:
        """Nothing: people came when they came."""
        return ()


def read(path: Path, *, limit: int = 0) -> list[Line]:
    """The trace's lines, or the first of them."""
    decoder = msgspec.json.Decoder(Line)
    with path.open("rb") as lines:
        decoded = (decoder.decode(line) for line in lines)
        return [line for at, line in enumerate(decoded) if not limit or at < limit]


def _reconstructed(lines: Sequence[Line]) -> list[_Recorded]:
    requests = [_Recorded(line) for line in lines]
    _find_parents(requests)
    ends = _split_points(requests)
    for number, one in enumerate(requests):
        full, ids = one.full(), one.line.hash_ids
        one.extents = tuple(_cut(ids[:full], ends))
        one.answer = (-1 - number, 0)
        if one.heir >= 0:
            added = list(_cut(requests[one.heir].line.hash_ids[full : one.complete()], ends))
            if len(added) == 1:
                one.answer = added[0]
        if one.parent >= 0:
            parent = requests[one.parent]
            one.links = [*parent.links, b"a" + parent.links[-1], b"%d" % number]
        else:
            one.links = [b"system", b"%d" % number]
    return requests


def _find_parents(requests: Sequence[_Recorded]) -> None:
    latest: dict[int, int] = {}
    for number, one in enumerate(requests):
        ids = one.line.hash_ids
        # Block 0 is everybody's; equal ids mean equal blocks before them too.
        one.parent = next((latest[block] for block in reversed(ids[1:]) if block in latest), -1)
        one.root = number
        if one.parent >= 0:
            parent = requests[one.parent]
            one.root = parent.root
            if parent.heir < 0:
                parent.heir = number
        if one.full() > 1:
            latest[ids[one.full() - 1]] = number


def _split_points(requests: Sequence[_Recorded]) -> set[int]:
    """Blocks that end an extent: where paths part, and where a prompt or its answer ends."""
    child: dict[int, int] = {}
    ends: set[int] = set()
    for one in requests:
        ids, full = one.line.hash_ids[: one.full()], one.full()
        for block, after in pairwise(ids):
            if child.setdefault(block, after) != after:
                ends.add(block)
        if full:
            ends.add(ids[-1])
        if one.heir >= 0:
            ends.update(requests[one.heir].line.hash_ids[one.complete() - 1 : one.complete()])
    return ends


def _cut(blocks: Sequence[int], ends: set[int]) -> Iterator[Extent]:
    start = 0
    for at, block in enumerate(blocks):
        if block in ends:
            yield blocks[start], at + 1 - start
            start = at + 1
    if start < len(blocks):
        yield blocks[start], len(blocks) - start
