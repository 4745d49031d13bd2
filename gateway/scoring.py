"""What a prompt's prefix is worth: which node should hold how much of it, and what came of that. Pure."""

from collections.abc import Iterable, Sequence

import msgspec
import xxhash

from gateway.moment import Moment
from gateway.nodes.usage import Usage
from gateway.plain_request import key_of, pieces_of
from gateway.request import CHAT, EMBEDDINGS, ChatRequest
from gateway.routing import prefix as chains
from gateway.routing.holdings import Held, Placed, Sought
from gateway.routing.prefix import PrefixChain, expected_tokens
from gateway.routing.router import Decision, Outcome, Router
from gateway.telemetry import CacheKey, Phase, Score
from history.conversation import Conversation, ConversationKey
from history.message import Message
from history.open_turn import OpenTurn
from history.prompt import Prompt
from history.spoken_tokens import CLOSING, spoken_tokens, tail_tokens

_BYTES_PER_TOKEN = 4
"""Where no usage tells better. English text; a guess is enough to compare nodes."""
_RECENT = 6


class Prefix(msgspec.Struct, frozen=True):
    """A prompt as routing sees it. Tokens are estimates until the engine has counted them."""

    chain: PrefixChain
    key: bytes
    """What rendezvous goes by."""
    prompt_tokens: int
    held: dict[str, Held]
    """Per node, what it should still have of it."""
    bound_to: str | None
    bound_at: float | None
    """When the binding's node got what it holds of this prompt (steady seconds); None: it holds nothing."""
    reusable: int
    """What the last answer's node had of it, whoever answers now."""
    phase: Phase
    head: tuple[bytes, int] = (b"", 0)
    """The link of its first message, which other prompts may share, and the tokens of that."""

    @property
    def places(self) -> list[tuple[bytes, int]]:
        """What a node will have that gets it."""
        return self._with_head(self.head[1], self.prompt_tokens)

    def placements(self, decision: Decision, usage: Usage) -> list[tuple[bytes, int]]:
        """What the node has that answered it, with the tokens that the engine counted."""
        if not usage.prompt_tokens:
            return []
        held, head = decision.held, self.head[1]
        if held is not None and held.is_head and usage.cached:
            # It had the beginning and no more, so that is how long it is: whole blocks before a last token.
            head = usage.cached + 1
        elif held is not None:
            # Its beginning was counted when it came there, or is guessed from when it was sent: no worse
            # than what is guessed now, and never to be put in the place of a count.
            head = 0
        elif self.prompt_tokens:
            head = round(head * usage.prompt_tokens / self.prompt_tokens)
        return self._with_head(head, usage.prompt_tokens)

    def _with_head(self, head: int, tokens: int) -> list[tuple[bytes, int]]:
        links = self.chain.links
        own = [(links[-1], tokens)] if links else []
        return [*own, (self.head[0], head)] if len(links) > 1 and head else own


def prefix_of_request(request: ChatRequest, router: Router, now: float) -> Prefix:
    """A stateless prompt: known from its own messages, byte for byte as they were sent."""
    if request.path == EMBEDDINGS:
        return _no_prefix(request)
    messages = _raw_messages(request.messages) if request.path == CHAT else pieces_of(request.messages)
    chain = chains.chain(_root(request), messages)
    known, tokens = router.longest_known(chain.links)
    tokens += sum(map(len, messages[known:])) // _BYTES_PER_TOKEN
    head, key = _head(chain, messages, tokens), b"".join(chain.links[:2][-1:])
    sought = Sought(links=chain.links, head=head, key=key)
    if (at := _newest_answer(messages)) is not None:
        # Whoever sent that answer has computed all that stands before the newest message.
        share = 1 - len(messages[-1]) / sum(map(len, messages))
        before = chain.links[at - 1] if at else b""
        sought = msgspec.structs.replace(sought, settled=round(tokens * share), before=before)
    held = router.held(sought, request.target, now)
    return Prefix(
        chain=chain,
        key=key,
        prompt_tokens=tokens,
        held=held,
        bound_to=None,
        bound_at=None,
        reusable=max((one.expected for one in held.values()), default=0),
        phase="stateless",
        head=head,
    )


def _no_prefix(request: ChatRequest) -> Prefix:
    """What leaves nothing that another one could use."""
    return Prefix(
        chain=PrefixChain(root=_root(request), links=()),
        key=key_of(request.messages),
        prompt_tokens=len(request.messages) // _BYTES_PER_TOKEN,
        held={},
        bound_to=None,
        bound_at=None,
        reusable=0,
        phase="stateless",
    )


def prefix_of_dialogue(request: ChatRequest, turn: OpenTurn, router: Router, now: Moment) -> Prefix:
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
    now: Moment,
) -> Prefix:
    """Any prompt of a conversation, also one that no user waits for."""
    parts, binding = prompt.parts, conversation.binding
    chain = chains.chain(_root(request), parts)
    reusable, known = 0, 0
    if binding is not None and binding.prefix in chain.links:
        known = chain.links.index(binding.prefix) + 1
        reusable = binding.tokens
    tokens = reusable + sum(len(part) for part in parts[known:]) // _BYTES_PER_TOKEN
    head, home = _head(chain, parts, tokens), None
    if binding is not None and known:
        home = Placed(node=binding.node, tokens=binding.tokens, at=now.of(binding.at))
    held = router.held(Sought(links=chain.links, head=head, home=home), request.target, now.steady)
    kept = held.get(home.node) if home is not None else None
    return Prefix(
        chain=chain,
        key=xxhash.xxh3_128_digest(f"{conversation_key.tenant}\0{conversation_key.id}".encode()),
        prompt_tokens=tokens,
        held=held,
        bound_to=binding.node if binding is not None else None,
        bound_at=home.at if home is not None and kept is not None and kept.expected else None,
        reusable=reusable,
        phase="first" if conversation.turn_count == 0 else "warm" if known else "cut",
        head=head,
    )


def resident(turn: OpenTurn, prefix: Prefix, message: Message, usage: Usage) -> tuple[bytes, int]:
    """The longest part of the next prompt that the node has now: its link and its tokens.

    Prompt and answer, unless a tail is dropped: then all that stood before the tail, the message's own text
    with it. The engine counts no message by itself: words and tail go by the prompt's own rate.
    """
    if turn.continues(message, usage.completion_tokens):
        return prefix.chain.extended(message.json), usage.prompt_tokens + usage.completion_tokens
    parts, said = turn.prompt.parts, turn.layout.without_tail()
    shown = (*parts[: len(parts) - len(said)], *said)
    link = chains.chain(prefix.chain.root, shown).links[-1]
    binding, counted, tokens = turn.layout.conversation.binding, 0, 0
    if binding is not None and binding.prefix in prefix.chain.links:
        counted, tokens = prefix.chain.links.index(binding.prefix) + 1, binding.tokens
    prompt = usage.prompt_tokens
    # With the last answer the engine has counted all that stands before the words; else from the other end.
    if counted == len(shown) - 1:
        return link, min(tokens + spoken_tokens(prompt, parts, shown[-1]), max(tokens, prompt))
    return link, max(0, prompt - CLOSING - tail_tokens(prompt, parts, len(parts[-1]) - len(shown[-1])))


def score(
    model: str, prefix: Prefix, decision: Decision, usage: Usage, block_size: int
) -> tuple[CacheKey, Score]:
    """Expected against actual, with the prompt's length as the engine counted it."""
    held = prefix.held.get(decision.node)
    expected = held.expected if held is not None else 0
    key = CacheKey(model=model, node=decision.node, route=decision.route, phase=prefix.phase)
    return key, Score(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        expected_tokens=expected_tokens(expected, usage.prompt_tokens, block_size),
        reusable_tokens=expected_tokens(prefix.reusable, usage.prompt_tokens, block_size),
        cached_tokens=usage.cached,
    )


def outcome(usage: Usage, first_s: float) -> Outcome:
    """What the engine counted, for the router to learn from."""
    return Outcome(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached,
        first_s=first_s,
    )


def _head(chain: PrefixChain, messages: Sequence[bytes], tokens: int) -> tuple[bytes, int]:
    """The first message's link and its share of the prompt's tokens."""
    if not messages:
        return b"", 0
    return chain.links[0], round(tokens * len(messages[0]) / sum(map(len, messages)))


def _newest_answer(messages: Sequence[bytes]) -> int | None:
    """Where the newest answer stands before the newest message, if one is near."""
    recent = range(len(messages) - 2, max(-1, len(messages) - _RECENT - 1), -1)
    return next((at for at in recent if b'"assistant"' in messages[at]), None)


def _root(request: ChatRequest) -> bytes:
    tools = request.fields.get("tools")
    template = b"" if request.path == CHAT else request.path.encode()
    return chains.root(
        request.target,
        salt=request.salt.encode(),
        tools=bytes(tools) if tools is not None else b"",
        template=template,
    )


def _raw_messages(raw: bytes) -> Sequence[bytes]:
    """The messages' own bytes; what is no list of messages is one piece, and the engine's to refuse."""
    try:
        pieces: Iterable[msgspec.Raw] = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return [raw]
    return [bytes(piece) for piece in pieces]
