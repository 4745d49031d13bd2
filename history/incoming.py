"""What a request's messages mean for a stored dialogue: which turns stay, which are new.

With a conversation, `messages` holds what is new. Only a request that contains an assistant message
beside the user's (or a tool's) counts as the whole dialogue or a window of it, and is aligned.
"""

from collections.abc import Iterable, Sequence

import msgspec

from history.alignment import align, split_digests
from history.conversation import Tailed, Turn
from history.errors import ConversationMismatch, InvalidMessages
from history.items import has_answer, question_of
from history.kept_tail import tailed_within
from history.message import DIGEST_SIZE, Message, digests, is_persona, parse_messages

_ANSWERS_TOOL_CALL = frozenset({"tool", "function"})


class Incoming(msgspec.Struct, frozen=True):
    """A request's messages, the leading persona set apart."""

    persona: Message | None
    messages: tuple[Message, ...]
    regenerates: bool = False
    """It says nothing new: the last message is to be answered anew."""

    @property
    def is_dialogue(self) -> bool:
        """Whether this is a dialogue to align rather than something new."""
        roles = {message.role for message in self.messages}
        return "assistant" in roles and bool(roles & {"user", *_ANSWERS_TOOL_CALL})

    @property
    def answers_tool(self) -> bool:
        """Whether it goes on with a turn that waits for a tool, instead of beginning one."""
        return bool(self.messages) and self.messages[0].role in _ANSWERS_TOOL_CALL

    @property
    def is_greeting(self) -> bool:
        """Whether the character itself speaks: nothing but assistant messages."""
        return bool(self.messages) and all(message.role == "assistant" for message in self.messages)


ANEW = Incoming(persona=None, messages=(), regenerates=True)
"""Nothing but the wish for another answer."""


class Draft(msgspec.Struct, frozen=True):
    """A turn before it has its answer."""

    messages: tuple[bytes, ...] = ()
    digests: bytes = b""
    mark: bytes = b""
    """Of the stored turn that it continues."""
    tailed: Tailed | None = None
    """Of that turn, too."""


class Plan(msgspec.Struct, frozen=True):
    """What becomes of the stored turns: `keep` of them stay, `adopted` follow, `draft` gets the answer."""

    keep: int
    draft: Draft
    adopted: tuple[Turn, ...] = ()
    is_branch: bool = False

    def growth(self, turn_count: int) -> int:
        """How many turns more are kept once it is written: a branch keeps what it replaces."""
        after = self.keep + len(self.adopted) + 1
        return after - (self.keep if self.is_branch else turn_count)


class NeedTurn(msgspec.Struct, frozen=True):
    """The plan branches inside this stored turn, which has to be read first."""

    index: int


def read_incoming(raw: bytes) -> Incoming:
    """Parse `messages`. Raises `InvalidMessages` on an empty list or a malformed message."""
    messages = parse_messages(raw)
    if not messages:
        raise InvalidMessages("messages must not be empty")
    if is_persona(messages[0]):
        return Incoming(persona=messages[0], messages=messages[1:])
    return Incoming(persona=None, messages=messages)


def plan_anew(turn_count: int, last: Turn) -> Plan:
    """The plan for answering the last message again; the answer it has stays as a branch.

    Raises `InvalidMessages` where nobody has said anything that could be answered.
    """
    messages, digests_so_far = question_of(last)
    was_asked = last.reply.prompt_tokens > 0 or last.reply.completion_tokens > 0
    if not messages and not was_asked:
        reason = "the last turn is a greeting, which answers nothing; send a message"
        raise InvalidMessages(reason, param="conversation")
    is_answered = has_answer(last)
    draft = Draft(
        messages,
        digests_so_far,
        mark=b"" if is_answered else last.mark,
        tailed=tailed_within(last.tailed, len(messages)),
    )
    return Plan(keep=turn_count - 1, draft=draft, is_branch=is_answered)


def plan_new(incoming: Incoming, turn_count: int, last: Turn | None, *, merge_incomplete: bool) -> Plan:
    """The plan for messages that are all new.

    A tool's result extends the turn that waits for it. With `merge_incomplete`, a turn whose answer was
    interrupted for this message is answered together with it; its unfinished answer stays as a branch. A turn
    that has no answer at all is not over: what comes goes on with it.
    """
    draft = _draft(incoming.messages)
    if incoming.answers_tool:
        if last is None or last.status != "open":
            raise InvalidMessages("no tool call of this conversation is waiting for a result")
        return Plan(keep=turn_count - 1, draft=_joined(last, draft, mark=last.mark))
    if last is not None and last.status == "incomplete" and not has_answer(last):
        return Plan(keep=turn_count - 1, draft=_joined(last, draft, mark=last.mark))
    if merge_incomplete and last is not None and last.status == "incomplete":
        return Plan(keep=turn_count - 1, draft=_joined(_question(last), draft), is_branch=True)
    return Plan(keep=turn_count, draft=draft)


def plan_dialogue(
    incoming: Incoming,
    turn_count: int,
    tail_digests: Sequence[bytes],
    loaded: dict[int, Turn],
) -> Plan | NeedTurn:
    """The plan for a dialogue or a window of it.

    `tail_digests` has one entry per stored turn, the newest ones; `loaded` the turns at hand by index.
    Raises `ConversationMismatch` where nothing aligns: then nothing may be changed.
    """
    if turn_count == 0:
        return _with_groups(keep=0, messages=incoming.messages)
    known = _known(incoming.messages)
    per_turn = [split_digests(blob) for blob in tail_digests]
    stored = [digest for turn in per_turn for digest in turn]
    found = align([message.digest for message in incoming.messages[:known]], stored)
    if found is None:
        raise ConversationMismatch("the dialogue sent matches nothing of the conversation stored")
    new = incoming.messages[found.matched :]
    turn, inside = _locate(per_turn, found.end)
    index = turn_count - len(per_turn) + turn
    if inside == 0 and index == turn_count:
        return _continue(turn_count, new, loaded)
    if inside == 0:
        return _with_groups(keep=index, messages=new, is_branch=True)
    if index not in loaded:
        return NeedTurn(index)
    split = loaded[index]
    head = Draft(
        split.messages[:inside],
        split.digests[: inside * DIGEST_SIZE],
        tailed=tailed_within(split.tailed, inside),
    )
    return _with_groups(keep=index, messages=new, head=head, is_branch=True)


def _continue(turn_count: int, new: tuple[Message, ...], loaded: dict[int, Turn]) -> Plan | NeedTurn:
    if not new or new[0].role == "user":
        return _with_groups(keep=turn_count, messages=new)
    last = loaded.get(turn_count - 1)
    if last is None:
        return NeedTurn(turn_count - 1)
    return _with_groups(keep=turn_count - 1, messages=new, head=_reopened(last))


def _with_groups(
    *, keep: int, messages: tuple[Message, ...], head: Draft | None = None, is_branch: bool = False
) -> Plan:
    """Turns from messages: all that are complete are adopted, the last is the draft to be answered."""
    groups = _grouped(messages, answered=head is not None and _has_answer(head))
    drafts = [_draft(group) for group in groups]
    if head is not None:
        drafts[0] = _joined(head, drafts[0], mark=head.mark)
    if messages and messages[-1].role == "assistant":
        drafts.append(Draft())
    *complete, draft = drafts
    adopted = tuple(
        Turn(messages=one.messages, digests=one.digests, mark=one.mark, tailed=one.tailed) for one in complete
    )
    return Plan(keep=keep, draft=draft, adopted=adopted, is_branch=is_branch)


def _grouped(messages: Iterable[Message], *, answered: bool) -> list[list[Message]]:
    """A turn begins at a user message, unless the turn so far has no answer; the first may be empty."""
    groups: list[list[Message]] = [[]]
    for message in messages:
        if message.role == "user" and answered:
            groups.append([])
            answered = False
        answered = answered or message.role == "assistant"
        groups[-1].append(message)
    return groups


def _known(messages: Sequence[Message]) -> int:
    """How many messages, up to the last assistant's, should be stored already."""
    return max(at + 1 for at, message in enumerate(messages) if message.role == "assistant")


def _locate(per_turn: Sequence[Sequence[bytes]], end: int) -> tuple[int, int]:
    """The turn in which stored message `end` lies, and its place in it."""
    for index, turn in enumerate(per_turn):
        if end < len(turn):
            return index, end
        end -= len(turn)
    return len(per_turn), 0


def _reopened(turn: Turn) -> Draft:
    return Draft(turn.messages, turn.digests, turn.mark, turn.tailed)


def _draft(messages: Sequence[Message]) -> Draft:
    return Draft(messages=tuple(message.json for message in messages), digests=digests(messages))


def _joined(head: Draft | Turn, tail: Draft, *, mark: bytes = b"") -> Draft:
    return Draft((*head.messages, *tail.messages), head.digests + tail.digests, mark, head.tailed)


def _question(turn: Turn) -> Draft:
    """An incomplete turn without the answer that was broken off."""
    if not turn.messages or not _is_answer(turn.messages[-1]):
        return Draft(turn.messages, turn.digests, tailed=turn.tailed)
    return Draft(turn.messages[:-1], turn.digests[:-DIGEST_SIZE], tailed=turn.tailed)


def _has_answer(draft: Draft) -> bool:
    return any(_is_answer(message) for message in draft.messages)


def _is_answer(message: bytes) -> bool:
    return bool(msgspec.json.decode(message)["role"] == "assistant")
