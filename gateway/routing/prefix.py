"""The identity of a prompt's prefix: a hash chain over its messages.

    h0 = hash(model, salt, tools)        h_i = hash(h_{i-1}, message i)

Two prompts share their first i messages exactly if their links i are equal, so a prefix is looked up by
one link and no tokenizer is needed. xxh3 hashes a 24 kB window in about 3 microseconds.
"""

from collections.abc import Iterable
from itertools import accumulate

import msgspec
import xxhash


class PrefixChain(msgspec.Struct, frozen=True):
    """`links[i]` identifies the prompt up to and including message i."""

    root: bytes
    links: tuple[bytes, ...]

    def extended(self, message: bytes) -> bytes:
        """The link after one more message: the answer that is about to be written."""
        return _link(self.links[-1] if self.links else self.root, message)


def chain(root: bytes, messages: Iterable[bytes]) -> PrefixChain:
    """The links of a prompt's messages, in order."""
    links = accumulate(messages, _link, initial=root)
    return PrefixChain(root=next(links), links=tuple(links))


def root(model: str, *, salt: bytes = b"", tools: bytes = b"", template: bytes = b"") -> bytes:
    """What has to be equal before any message can be: another model, salt or tool list shares nothing."""
    parts = (model.encode(), salt, tools, template)
    return xxhash.xxh3_128_digest(b"".join(len(part).to_bytes(8, "big") + part for part in parts))


def expected_tokens(held: int, prompt: int, block: int) -> int:
    """How many tokens of a prompt a node serves from cache if it holds `held` tokens of its prefix.

    The newest token's KV is not computed until it is read, whole blocks only, and at least one token of
    every prompt is computed: floor((held-1)/B)*B, at most floor((prompt-1)/B)*B.
    """
    return max(0, min((held - 1) // block, (prompt - 1) // block) * block)


def _link(previous: bytes, message: bytes) -> bytes:
    return xxhash.xxh3_128_digest(previous + message)
