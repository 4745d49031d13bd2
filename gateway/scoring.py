"""What a prompt's prefix is worth: which node should hold how much of it, and what came of that. Pure."""

from collections.abc import Iterable, Sequence

import msgspec
import xxhash

from gateway.nodes.completion import Usage
from gateway.request import ChatRequest
from gateway.routing import prefix as chains
from gateway.routing.choice import Decision
from gateway.routing.prefix import PrefixChain, expected_tokens
from gateway.routing.router import Router
from gateway.telemetry import CacheKey, Phase, Score
from history.conversation import Conversation, ConversationKey
from history.message import Message
from history.open_turn import OpenTurn
from history.prompt import Prompt

_BYTES_PER_TOKEN = 4
"""Where no usage tells better. English text; a guess is enough to compare nodes."""
_RECENT = 6


class Prefix(msgspec.Struct, frozen=True):
    """A prompt as routing sees it. Tokens are estimates until the engine has counted them."""

    chain: PrefixChain
    key: bytes
    """What rendezvous goes by."""
    prompt_tokens: int
    held: dict[str, int]
    """Per node, tokens of the prefix it should still have."""
    bound_to: str | None
    bound_at: float
    """When the binding's node got what it holds of this prompt; 0 where it holds nothing of it."""
    reusable: int
    """What the last answer's node had of it, whoever answers now."""
    phase: Phase

    def placements(self, usage: Usage) -> list[tuple[bytes, int]]:
        """The prompt's own end, with the tokens that the engine counted."""
        return [(self.chain.links[-1], usage.prompt_tokens)] if self.chain.links else []


def prefix_of_request(request: ChatRequest, router: Router, now: float) -> Prefix:
    """A stateless prompt: known from its own messages, byte for byte as they were sent."""
    messages = _raw_messages(request.messages)
    chain = chains.chain(_root(request), messages)
    held = router.held(chain.links, now)
    return Prefix(
        chain=chain,
        key=b"".join(chain.links[:2][-1:]),
        prompt_tokens=len(request.messages) // _BYTES_PER_TOKEN,
        held=held,
        bound_to=None,
        bound_at=0.0,
        reusable=max(held.values(), default=0),
        phase="stateless",
    )


def prefix_of_dialogue(request: ChatRequest, turn: OpenTurn, router: Router, now: float) -> Prefix:
    """A conversation's prompt: its binding says which node has it, and how much."""
    conversation = turn.layout.conversation
    return prefix_of_prompt(request, turn.key, conversation, turn.prompt, router, now=now)


def prefix_of_prompt(
    request: ChatRequest,
    conversation_key: ConversationKey,
    conversation: Conversation,
    prompt: Prompt,
    router: Router,
    *,
    now: float,
) -> Prefix:
    """Any prompt of a conversation, also one that no user waits for."""
    parts, binding = prompt.parts, conversation.binding
    chain = chains.chain(_root(request), parts)
    reusable, known = 0, 0
    if binding is not None and binding.prefix in chain.links:
        known = chain.links.index(binding.prefix) + 1
        reusable = binding.tokens
    kept = router.kept(binding.node, binding.tokens, binding.at, now) if binding is not None and known else 0
    if binding is not None and kept:
        # Its own node has the most of it; where else a recent part lies, the newest links tell.
        held = router.held(chain.links[-_RECENT:], now) | {binding.node: kept}
    else:
        held = router.held(chain.links, now)
    new_bytes = sum(len(part) for part in parts[known:])
    return Prefix(
        chain=chain,
        key=xxhash.xxh3_128_digest(f"{conversation_key.tenant}\0{conversation_key.id}".encode()),
        prompt_tokens=reusable + new_bytes // _BYTES_PER_TOKEN,
        held=held,
        bound_to=binding.node if binding is not None else None,
        bound_at=binding.at if binding is not None and kept else 0.0,
        reusable=reusable,
        phase="first" if conversation.turn_count == 0 else "warm" if known else "cut",
    )


def resident(turn: OpenTurn, prefix: Prefix, message: Message, usage: Usage) -> tuple[bytes, int]:
    """The longest part of the next prompt that the node has now: its link and its tokens.

    Prompt and answer, unless a tail is dropped: then all that stood before this turn.
    """
    if turn.continues(message, usage.completion_tokens):
        return prefix.chain.extended(message.json), usage.prompt_tokens + usage.completion_tokens
    parts = turn.prompt.parts
    known = len(parts) - len(turn.layout.plan.draft.messages)
    if known == 0:
        return prefix.chain.root, 0
    link, binding = prefix.chain.links[known - 1], turn.layout.conversation.binding
    if binding is not None and binding.prefix == link:
        return link, binding.tokens
    share = sum(map(len, parts[:known])) / sum(map(len, parts))
    return link, round(usage.prompt_tokens * share)


def score(
    model: str, prefix: Prefix, decision: Decision, usage: Usage, block_size: int
) -> tuple[CacheKey, Score]:
    """Expected against actual, with the prompt's length as the engine counted it."""
    held = prefix.held.get(decision.node, 0)
    key = CacheKey(model=model, node=decision.node, route=decision.route, phase=prefix.phase)
    return key, Score(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        expected_tokens=expected_tokens(held, usage.prompt_tokens, block_size),
        reusable_tokens=expected_tokens(prefix.reusable, usage.prompt_tokens, block_size),
        cached_tokens=usage.cached,
    )


def _root(request: ChatRequest) -> bytes:
    tools = request.fields.get("tools")
    return chains.root(request.model, tools=bytes(tools) if tools is not None else b"")


def _raw_messages(raw: bytes) -> Sequence[bytes]:
    """The messages' own bytes; what is no list of messages is one piece, and the engine's to refuse."""
    try:
        pieces: Iterable[msgspec.Raw] = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return [raw]
    return [bytes(piece) for piece in pieces]
