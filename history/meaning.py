"""What a message means, beside its words: vectors of archived turns, how they are kept, what is near. Pure.

A vector is kept as one signed byte per dimension, scaled so that its largest component is 127. Two vectors
are compared by their angle, which no scale changes, so none is kept. Beside each stands a stamp of its turn's
digests: it says by itself whether the turn it was made of is still the one at its place.

How alike "alike" is depends on the model: with one, everything lies between 0.7 and 0.9, with another
between 0 and 0.6. So a turn stands out not by its distance d, but by how far that lies
below the mean of the N archived turns of its conversation, in their standard deviations:

    d <= mean - stands_out * sqrt(2 ln N) * deviation

Of N normal numbers the farthest lies about sqrt(2 ln N) deviations from the mean: with `stands_out` 1 the
nearest of the archive gets there by chance now and then, at 50 turns as at 10,000.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import xxhash

from history.conversation import Turn
from history.passage import remembered

STAMP_BYTES = 8
MAX_NEAR = 3
"""More turns than this are never recalled for their meaning: of those that stand out the nearest."""
MAX_DIMENSIONS = 8_192
_LEAST_TURNS = 8
"""Of fewer turns a mean says nothing."""
_FUSED = 60
_LARGEST = 127


class MeaningRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recall by meaning, beside recall by words. Off unless a model is named."""

    model: str = ""
    """The model that nodes of the roster serve under `/v1/embeddings`; empty: words alone."""
    query_prefix: str = ""
    """What the model wants before a question, such as `query: `."""
    turn_prefix: str = ""
    """What it wants before what is searched, such as `passage: `. Another one makes all vectors anew."""
    wait_s: float = 0.05
    """How long a message waits for the vector of its question; then it is recalled by words alone."""
    stands_out: float = 0.9
    """How much nearer than others a turn has to be; 1: as near as by chance one turn of the whole archive."""
    max_chars: int = 1_500
    """How much of a turn a vector is made of; models read a few hundred tokens."""
    batch: int = 16
    """Turns per call to a node."""


class Vectors(msgspec.Struct, frozen=True):
    """A stretch of a conversation's vectors as the store keeps them: those of `start` and of what follows."""

    form: str
    """How they were made (see `form_of`): another one, and they are not comparable."""
    past: int
    """`Conversation.past.number` when the turns were read: none of them was replaced since."""
    created_at: float
    """The conversation's: an id that was erased may be used again."""
    start: int
    records: tuple[bytes, ...]
    """For each turn its stamp and its quantised vector."""


class VectorSpan(msgspec.Struct, frozen=True):
    """Which turns have a vector: `start` to `stop`."""

    form: str
    past: int
    start: int
    stop: int


NO_VECTORS = VectorSpan(form="", past=0, start=0, stop=0)


def form_of(rule: MeaningRule) -> str:
    """A name for how vectors are made under this rule; the number of dimensions is added to it."""
    made = f"{rule.model}\0{rule.turn_prefix}\0{rule.max_chars}"
    return f"1.{xxhash.xxh3_64_hexdigest(made.encode('utf-8', 'surrogatepass'))}"


def stamp(digests: bytes) -> bytes:
    """What tells a turn by its digests."""
    return xxhash.xxh3_64_digest(digests)


def is_of_form(made: str, form: str) -> bool:
    """Whether vectors were made in this way, whatever their dimensions."""
    return made.rpartition("/")[0] == form


def record_of(turn: Turn, vector: Sequence[float]) -> bytes:
    """A turn's stamp and vector, to be kept. Raises `ValueError` for what is no vector."""
    return stamp(turn.digests) + quantised(vector)


def embedded_text(turn: Turn, rule: MeaningRule) -> str:
    """What a turn's vector is made of."""
    return rule.turn_prefix + remembered(0, turn, max_chars=rule.max_chars).text()


def quantised(vector: Sequence[float]) -> bytes:
    """One signed byte per dimension; every component is off by at most 1/254 of the largest one.

    Raises `ValueError` for a vector without a direction.
    """
    largest = max(map(abs, vector), default=0.0)
    if not 0 < largest < math.inf:
        raise ValueError(f"no direction: the largest component is {largest}")
    return bytes(round(x / largest * _LARGEST) & 0xFF for x in vector)


def nearest(found: Iterable[tuple[float, int]]) -> list[int]:
    """The positions of what stands out, nearest first, of ties the newer. `found`: distance and position."""
    ranked = sorted(found, key=lambda one: (one[0], -one[1]))
    return [position for _, position in ranked[:MAX_NEAR]]


def farthest(count: int, total: float, squares: float, stands_out: float) -> float:
    """How far away a turn may be and stand out, by the sum and the sum of squares of all distances.

    Below every distance where there are too few turns, or no differences between them.
    """
    mean = total / max(1, count)
    variance = squares / max(1, count) - mean * mean
    if count < _LEAST_TURNS or variance <= 0:
        return -math.inf
    return mean - stands_out * math.sqrt(2 * math.log(count) * variance)


def fused(*rankings: Sequence[int]) -> list[int]:
    """Several rankings in one, by the sum of 1 / (60 + rank) over those that have a position.

    Reciprocal rank fusion (Cormack, Clarke and Buettcher 2009): it asks nothing of scores that are not
    comparable. Ties go to the newer turn.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, position in enumerate(ranking, start=1):
            scores[position] = scores.get(position, 0.0) + 1 / (_FUSED + rank)
    return sorted(scores, key=lambda position: (-scores[position], -position))


def still_true(records: Sequence[bytes], digests: Sequence[bytes]) -> int:
    """How many of the first records are of the turns that have these digests."""
    return next(
        (
            at
            for at, (record, digest) in enumerate(zip(records, digests, strict=False))
            if record[:STAMP_BYTES] != stamp(digest)
        ),
        min(len(records), len(digests)),
    )


def read_embeddings(body: bytes, count: int) -> list[list[float]]:
    """The vectors of an answer of `/v1/embeddings`, in the order of what was sent.

    Raises `ValueError` for anything but `count` vectors of one length that have a direction.
    """
    try:
        data = msgspec.json.decode(body, type=_Answer).data
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no embeddings: {type(error).__name__}") from error
    by_index: Mapping[int, list[float]] = {one.index: one.embedding for one in data}
    if set(by_index) != set(range(count)) or len({len(one) for one in by_index.values()}) != 1:
        raise ValueError(f"{count} texts were sent, {len(data)} vectors came, or they differ in length")
    vectors = [by_index[at] for at in range(count)]
    if not all(0 < sum(map(abs, one)) < math.inf and len(one) <= MAX_DIMENSIONS for one in vectors):
        raise ValueError("a vector is zero, endless or too long")
    return vectors


class _Embedding(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct, frozen=True):
    data: list[_Embedding]
