"""The facts of a dialogue: turns, the conversation around them, and who may write.

Everything here is a frozen record that a store can keep as it is. A message is kept as the JSON
text that goes into every later prompt, byte for byte, because the engines' prefix caches match bytes.
"""

from typing import Literal

import msgspec

SCHEMA_VERSION = 1

_encode = msgspec.msgpack.Encoder().encode

Status = Literal["complete", "open", "incomplete"]


class ConversationKey(msgspec.Struct, frozen=True):
    """Whose dialogue it is. Ids are only unique inside a tenant."""

    tenant: str
    id: str


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What surrounds the answer in the engine's response, kept so that a retry can be answered again."""

    id: str = ""
    model: str = ""
    created: int = 0
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    version: str = ""
    """What answered, where `model` is an alias of several."""


class Tailed(msgspec.Struct, frozen=True, array_like=True):
    """Where a tail stands that was kept with its turn. Prompts with another cut than its own leave it out."""

    message: int
    """Which of the turn's messages has it."""
    chars: int
    cut: int


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """A user message and everything up to the final assistant message.

    `open` turns end with a tool call whose result is still to come; `incomplete` ones lost their
    answer half way. A greeting or a proactive message is a turn without a user message.
    """

    messages: tuple[bytes, ...]
    digests: bytes
    """16 bytes per message: what the client could see of it (see `message.visible_digest`)."""
    tokens: int = 0
    """What the turn adds to a prompt; measured by the engine's usage, 0 where it gave none."""
    at: float = 0.0
    """Unix seconds of the commit, by the gateway's clock."""
    status: Status = "complete"
    idempotency_key: str = ""
    body_hash: bytes = b""
    reply: Reply = Reply()
    mark: bytes = b""
    """Tells it from every other turn that ever stood at its place; kept while it waits for a tool."""
    tailed: Tailed | None = None


def token_estimate(turn: Turn) -> int:
    """What the turn adds to a prompt: as measured, else four bytes of JSON to a token."""
    return turn.tokens or sum(len(message) for message in turn.messages) // 4


def turn_size(turn: Turn) -> int:
    """How many bytes it takes, as it is kept."""
    return len(_encode(turn))


class Binding(msgspec.Struct, frozen=True, array_like=True):
    """Which node holds the conversation's KV, up to which prefix, since when."""

    node: str
    prefix: bytes
    """The prefix chain's link after the last answer."""
    tokens: int
    """Prompt plus completion tokens of that answer: what the node had in cache then."""
    at: float
    version: str = ""
    """Whose KV that is, where the model that was asked for is an alias: what the next turn goes to."""


class Memory(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """One version of what is remembered of the turns that leave the window. A version never changes.

    What it looks like in a prompt is kept beside its fields (see `memory.rendered`), for as long as it lives.
    """

    covers_to: int
    """How many turns of the dialogue it covers, all those before included."""
    version: int
    """Counted per conversation, from 1."""
    summary: str
    facts: tuple[str, ...] = ()
    at: float = 0.0
    """Unix seconds."""


class PastMark(msgspec.Struct, frozen=True, array_like=True):
    """While `number` is the same, the turns before the cut are the same at their positions.

    They never change, until a branch replaces some of them; the cut alone does not tell, since it comes
    forward again over other turns.
    """

    number: int = 0
    reach: int = 0
    """The furthest that the cut came under this number."""


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """How much is kept: turns, replaced and archived ones included, and their bytes as they are encoded."""

    turns: int = 0
    bytes: int = 0


class Conversation(msgspec.Struct, frozen=True):
    """Everything remembered under one id but the turns themselves."""

    user: str = ""
    character: str = ""
    persona: bytes = b""
    """The system message as JSON, empty where there is none."""
    epoch: int = 0
    """How many times the persona was replaced; each costs the cache."""
    turn_count: int = 0
    """All turns of the active branch, those out of the window included."""
    cut: int = 0
    """How many of them have left the window; only moves forward while turns are added."""
    memories: tuple[Memory, ...] = ()
    """The newest versions, oldest first: the one that the window shows, and perhaps one for the next cut."""
    shows: int = 0
    """How many turns the version covers that the prompt shows; 0: it shows none. Changes at cuts only."""
    grows_to: int = 0
    """How many turns its window grows to, where that is found (`max_turns: auto`): set when it begins and
    with every cut; 0: by the rule of now."""
    memory_version: int = 0
    """Counts every change of `memories`, so that a late writer is noticed."""
    branches: int = 0
    past: PastMark = PastMark()
    """Tells whether a copy of the turns before the cut is still true."""
    base: int = 0
    """How many of the first turns are in the archive and no longer in the store."""
    metadata: bytes = b""
    """What the client noted about it: a JSON object, empty for none."""
    binding: Binding | None = None
    stored: Stored = Stored()
    """All that is kept of it, for limits."""
    created_at: float = 0.0
    updated_at: float = 0.0


class Lease(msgspec.Struct, frozen=True):
    """The right to write one conversation, until it expires or a later fence is handed out."""

    owner: str
    fence: int
    duration_ms: int
