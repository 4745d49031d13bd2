"""Weighted rendezvous hashing: replicas agree on a node for a key without talking.

Each node draws a score from (key, node); the highest wins. A node that comes or goes moves only its own
share of the keys. Score: -weight / ln(u), u uniform in (0, 1) (Thaler and Ravishankar 1998; weights after
Schindelhauer and Schomaker 2005). O(nodes) per key.
"""

import math

import xxhash


def score(key: bytes, node: str, weight: float) -> float:
    """The node's score for the key; comparable between nodes, always positive."""
    drawn = xxhash.xxh3_64_intdigest(key + b"\0" + node.encode())
    return -weight / math.log((drawn + 0.5) / 2**64)
