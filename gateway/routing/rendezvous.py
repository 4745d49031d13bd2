"""Weighted rendezvous hashing: replicas agree on a node for a key without talking.

Each node draws a score from (key, node); the highest wins. A node that comes or goes moves only its own
share of the keys. Score: -weight / ln(u), u uniform in (0, 1) (Thaler and Ravishankar 1998; weights after
Schindelhauer and Schomaker 2005). O(nodes) per key.
"""

import math
from collections.abc import Sequence

import xxhash


def winner(key: bytes, nodes: Sequence[tuple[str, float]]) -> int:
    """The index of the node with the highest score for the key; nodes are names with weights."""
    salted = key + b"\0"
    drawn = [xxhash.xxh3_64_intdigest(salted + name.encode()) for name, _ in nodes]
    if len({weight for _, weight in nodes}) > 1:
        scores = [_score(draw, weight) for draw, (_, weight) in zip(drawn, nodes, strict=True)]
        return scores.index(max(scores))
    return drawn.index(max(drawn))  # the score grows with what was drawn


def _score(drawn: int, weight: float) -> float:
    return -weight / math.log((drawn + 0.5) / 2**64)
