"""Deterministic embeddings: hashed bags of words, so that texts with words in common lie near each other.

Words of one group in `synonyms` are one word, and count for more: those that a question is about.
"""

import base64
import math
from array import array

import xxhash

from bench.stub_node.synonyms import concepts
from bench.stub_node.tokens import split

_KNOWN_WEIGHT = 3.0


def embed(text: str, *, size: int) -> list[float]:
    """A unit vector of `size` dimensions; case and order of words do not matter."""
    vector = [0.0] * size
    known, rest = concepts(text.lower())
    words = [(word, _KNOWN_WEIGHT) for word in dict.fromkeys(known)]
    words += [(word, 1.0) for piece in split(rest) if (word := piece.strip())]
    for word, weight in words:
        drawn = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        vector[drawn % size] += weight if drawn >> 63 else -weight
    norm = math.sqrt(sum(x * x for x in vector))
    if norm == 0.0:
        return [1.0] + [0.0] * (size - 1)
    return [x / norm for x in vector]


def as_base64(vector: list[float]) -> str:
    """Little-endian 32-bit floats, the form that OpenAI's SDK asks for."""
    return base64.b64encode(array("f", vector).tobytes()).decode()
