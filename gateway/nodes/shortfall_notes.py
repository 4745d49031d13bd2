"""What an operator is told of a node that does not keep what is expected of it, or counts what cannot be."""

from collections.abc import Mapping

from gateway.routing.node import Node
from gateway.routing.truth import Reason

_SAID: Mapping[Reason, str] = {
    "nothing": "none of it is ever found, also of what was there a minute ago: prefix caching is off, or "
    "each prompt begins differently (a template that writes the time, a cache salt of its own per request)",
    "rewritten": "only the beginning is found, however long the dialogue: the chat template writes earlier "
    "turns differently than they were answered (thoughts taken out, tool calls put differently)",
    "blocks": "what is found comes in large steps: its cache works in blocks of more tokens than it told "
    "(models with hybrid attention do), so short prefixes are lost",
    "evicted": "what is a minute old is found and what is older is not: its KV cache is too small for those "
    "who talk on it; give it more memory for KV, a second tier, or fewer conversations",
    "unclear": "what is found follows no pattern; speculative decoding or other users of it can do that",
}
_MISCOUNTS = (
    "some of its answers report token counts that cannot be (negative, no numbers, or more than the model's "
    "context or the request has): these are left out of all sums"
)


def shortfall_notes(node: Node) -> tuple[str, ...]:
    """Nothing, or what its token counts show to be wrong."""
    odd = (_MISCOUNTS,) if node.miscounts else ()
    reason = node.truth.reason
    if reason is None or (reason == "nothing" and node.facts.caches is False):
        return odd
    return (*odd, f"less than half of what should be in its cache is, so it is trusted less: {_SAID[reason]}")
