"""An exported conversation: a line for its head, then one for each turn. Pure; written and read here.

    {"object":"friendo.conversation","version":1,"id":"conv_…","turns":2,"persona":{…},"memories":[…],…}
    {"object":"friendo.turn","turn":0,"messages":[{"role":"user",…},{"role":"assistant",…}],"at":…,…}
    {"object":"friendo.turn","branch":1,"turn":1,"messages":[…],…}

Turns that were replaced have the number of their branch and stand behind the others.

Messages stand in it byte for byte, so that a dialogue that is imported again has the prompts that it had.
What only a retry asks for (idempotency keys, hashes of bodies) and where KV lies is left out.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from history.beginning import Beginning, Owner
from history.conversation import Conversation, Memory, Reply, Status, Tailed, Turn
from history.errors import InvalidMessages
from history.grouping import Grouped
from history.import_events import Event, Line, Replaced, Start, Whole, Wrong
from history.import_items import kept_message
from history.message import DIGEST_SIZE

VERSION = 1
HEAD: Literal["friendo.conversation"] = "friendo.conversation"
TURN: Literal["friendo.turn"] = "friendo.turn"


class _Memory(msgspec.Struct, forbid_unknown_fields=True):
    covers_to: int
    version: int
    summary: str
    facts: list[str] = []
    at: float = 0.0


class _Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str = ""
    model: str = ""
    created: int = 0
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    version: str = ""


class _Head(msgspec.Struct):
    object: Literal["friendo.conversation"]
    version: int
    id: str
    turns: int
    user: str = ""
    character: str = ""
    persona: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    branches: int = 0
    epoch: int = 0
    cut: int = 0
    shows: int = 0
    memories: list[_Memory] = []
    created_at: float = 0.0
    updated_at: float = 0.0


class _Turn(msgspec.Struct, omit_defaults=True):
    object: Literal["friendo.turn"]
    turn: int
    messages: list[msgspec.Raw]
    digests: str
    branch: int = 0
    status: Status = "complete"
    at: float = 0.0
    tokens: int = 0
    mark: str = ""
    reply: _Reply = _Reply()
    ratings: dict[str, msgspec.Raw] = {}
    tailed: Tailed | None = None


def is_head(fields: Mapping[str, object]) -> bool:
    """Whether a file that begins with this line is such an export."""
    return fields.get("object") == HEAD


def head_line(conversation_id: str, conversation: Conversation, *, branches: int) -> bytes:
    """The line of a conversation of which so many branches follow its turns."""
    head = _Head(
        object=HEAD,
        version=VERSION,
        id=conversation_id,
        turns=conversation.turn_count,
        user=conversation.user,
        character=conversation.character,
        persona=msgspec.Raw(conversation.persona or b"null"),
        metadata=msgspec.Raw(conversation.metadata or b"{}"),
        branches=branches,
        epoch=conversation.epoch,
        cut=conversation.cut,
        shows=conversation.shows,
        memories=[
            _Memory(one.covers_to, one.version, one.summary, list(one.facts), one.at)
            for one in conversation.memories
        ],
        created_at=conversation.created_at,
        updated_at=conversation.updated_at,
    )
    return msgspec.json.encode(head) + b"\n"


def turn_line(turn: Turn, index: int, ratings: Mapping[str, bytes], *, branch: int = 0) -> bytes:
    """The line of one turn; `branch`: of which branch, 0 for the dialogue itself."""
    fields = {name: getattr(turn.reply, name) for name in Reply.__struct_fields__}
    line = _Turn(
        object=TURN,
        turn=index,
        messages=[msgspec.Raw(message) for message in turn.messages],
        digests=base64.b64encode(turn.digests).decode(),
        branch=branch,
        status=turn.status,
        at=turn.at,
        tokens=turn.tokens,
        mark=turn.mark.hex(),
        tailed=turn.tailed,
        reply=_Reply(**fields),
        ratings={item: msgspec.Raw(rating) for item, rating in ratings.items() if rating},
    )
    return msgspec.json.encode(line) + b"\n"


def events(lines: Iterable[Line]) -> Iterator[Event]:
    """What an export says. A turn that is missing or out of its place is a wrong line."""
    reader = _Reader()
    for number, line in lines:
        try:
            yield from reader.read(number, line)
        except InvalidMessages as error:
            yield Wrong(number, f"{error.param}: {error.reason}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            yield Wrong(number, str(error))
    yield from reader.end()


class _Reader:
    """Where in an export we are."""

    def __init__(self) -> None:
        self._head: _Head | None = None
        self._turns = 0
        self._branch: list[Turn] = []
        self._branch_number = 0
        self._branch_at = 0
        self._ratings: list[tuple[str, bytes]] = []
        self._line = 0

    def read(self, number: int, line: bytes) -> Iterator[Event]:
        kind = msgspec.json.decode(line, type=_Kind).object
        if kind == HEAD:
            yield from self.end()
            self._line = number
            head = msgspec.json.decode(line, type=_Head)
            if head.version > VERSION:
                raise ValueError(f"version {head.version} of the export is newer than this program")
            self._head, self._turns, self._branch_number = head, 0, 0
            yield _start(head, number)
        elif self._head is None:
            raise ValueError("a turn before its conversation's head")
        else:
            yield from self._read_turn(number, msgspec.json.decode(line, type=_Turn))

    def end(self) -> Iterator[Event]:
        """The conversation is over."""
        yield from self._end_branch()
        if self._head is not None and self._turns < self._head.turns:
            reason = f"the conversation has {self._head.turns} turns, and {self._turns} are here"
            yield Wrong(self._line, reason)
        self._head = None

    def _read_turn(self, number: int, line: _Turn) -> Iterator[Event]:
        turn, ratings = _turn(line), tuple((item, bytes(raw)) for item, raw in line.ratings.items())
        if not line.branch:
            if line.turn != self._turns:
                raise ValueError(f"turn {self._turns} is missing: this is turn {line.turn}")
            self._turns += 1
            yield Whole(Grouped(turn=turn), number, ratings)
            return
        if line.branch != self._branch_number:
            yield from self._end_branch()
            self._branch_number, self._branch_at, self._line = line.branch, line.turn, number
        if line.turn != self._branch_at + len(self._branch):
            raise ValueError(f"turn {line.turn} is out of its place in branch {line.branch}")
        self._branch.append(turn)
        self._ratings += ratings

    def _end_branch(self) -> Iterator[Event]:
        if self._branch:
            yield Replaced((self._branch_at, tuple(self._branch)), self._line, tuple(self._ratings))
        self._branch, self._ratings = [], []


class _Kind(msgspec.Struct):
    object: str


def _start(head: _Head, line: int) -> Start:
    persona, metadata = bytes(head.persona), bytes(head.metadata)
    return Start(
        seed=head.id.encode("utf-8", "surrogatepass"),
        beginning=Beginning(
            owner=Owner(user=head.user, character=head.character),
            persona=b"" if persona == b"null" else persona,
            metadata=b"" if metadata == b"{}" else metadata,
            created_at=head.created_at,
        ),
        line=line,
        id=head.id,
        memories=tuple(
            Memory(one.covers_to, one.version, one.summary, tuple(one.facts), one.at) for one in head.memories
        ),
        cut=head.cut,
        shows=head.shows,
        updated_at=head.updated_at,
    )


def _message(raw: msgspec.Raw, digests: bytes, at: int) -> tuple[bytes, bytes]:
    """A message as it stands in prompts, and its digest; one that was edited in the file is read anew."""
    kept = kept_message(at, msgspec.json.decode(raw, type=dict[str, Any]))
    if kept.json != bytes(raw):
        return kept.json, kept.digest
    # The digest is of what the client had said, before control tokens were taken out of it.
    return kept.json, digests[at * DIGEST_SIZE : (at + 1) * DIGEST_SIZE]


def _turn(line: _Turn) -> Turn:
    try:
        digests, mark = base64.b64decode(line.digests, validate=True), bytes.fromhex(line.mark)
    except binascii.Error as error:
        raise ValueError(f"digests are no base64: {error}") from error
    if len(digests) != DIGEST_SIZE * len(line.messages):
        raise ValueError(f"digests have {DIGEST_SIZE} bytes for each message")
    messages = [_message(raw, digests, at) for at, raw in enumerate(line.messages)]
    return Turn(
        messages=tuple(json for json, _ in messages),
        digests=b"".join(digest for _, digest in messages),
        tokens=line.tokens,
        at=line.at,
        status=line.status,
        reply=Reply(**{name: getattr(line.reply, name) for name in Reply.__struct_fields__}),
        mark=mark,
        tailed=line.tailed,
    )
