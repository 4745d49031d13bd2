"""The window over a dialogue that nobody stores: the client sends all of it with every request.

Where the cut lies is a function of the messages alone, and the same one that a stored conversation would
have come to: so between two cuts prompt t is a strict prefix of prompt t+1 here as well, and the last
`min_turns` turns are always there. Messages stay as they were sent, byte for byte.
"""

from collections.abc import Sequence
from itertools import pairwise, takewhile

import msgspec

from history.errors import InvalidMessages
from history.window import WindowRule, advance, stateless_cut

_PERSONA_ROLES = frozenset({"system", "developer"})
_BYTES_PER_TOKEN = 4
"""Nobody measured these turns, so the ceiling goes by an estimate."""


class _Role(msgspec.Struct):
    role: str


_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_role = msgspec.json.Decoder(_Role).decode


def windowed(raw: bytes, rule: WindowRule) -> bytes:
    """The value of `messages` with the turns left out that have left the window.

    Leading system messages stay. A turn begins at a user message whose predecessor was answered, so a
    tool's call and result are never parted. What comes last is being answered now and is no turn yet.
    Linear in the number of messages. Raises `InvalidMessages` where one has no role.
    """
    try:
        pieces = [bytes(piece) for piece in _decode_list(raw)]
        roles = [_decode_role(piece).role for piece in pieces]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessages(f"messages must be an array of objects with a role: {error}") from error
    leading = sum(1 for _ in takewhile(_PERSONA_ROLES.__contains__, roles))
    starts = _starts(roles, leading)
    tokens = [sum(map(len, pieces[start:end])) // _BYTES_PER_TOKEN for start, end in pairwise(starts)]
    cut = _cut(tokens, rule)
    if not cut:
        return raw
    return b"[" + b",".join((*pieces[:leading], *pieces[starts[cut] :])) + b"]"


def _starts(roles: Sequence[str], leading: int) -> list[int]:
    """Where each turn begins; the last one is not over."""
    starts, answered = [leading], False
    for at in range(leading, len(roles)):
        if roles[at] == "user" and answered:
            starts.append(at)
            answered = False
        answered = answered or roles[at] == "assistant"
    return starts


def _cut(tokens: Sequence[int], rule: WindowRule) -> int:
    """The cut after so many complete turns, each of so many tokens."""
    if not rule.max_tokens:
        return stateless_cut(len(tokens), rule)
    # The ceiling's cuts depend on those before them: they are made again one by one.
    cut, total = 0, 0
    for at, size in enumerate(tokens):
        total += size
        is_full = at + 1 - cut > rule.max_turns and rule.policy != "all"
        if is_full or total > rule.max_tokens:
            moved = advance(cut, tokens[cut : at + 1], rule)
            total -= sum(tokens[cut:moved])
            cut = moved
    return cut
