"""What a stub node answers: a function of the messages, so that a test knows it beforehand.

In this order: a tool call if the request names a function or the last user message says "call NAME"; "Your
name is X." if the last user message asks "what is my name" and any user message says "my name is X"; else a
sentence drawn by a hash of the last user message (and the request's `seed`).
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import xxhash

from bench.stub_node.tokens import END_OF_ANSWER, Tokens, ids_of, render_call, split, text_of
from bench.stub_node.wire import FunctionCall, Message, Parameters, Property, Tool, ToolCall, ToolChoice

Finish = Literal["stop", "length", "tool_calls"]

_NAME_GIVEN = re.compile(r"\bmy name is ([^\W\d_][\w'-]*)", re.IGNORECASE)
_NAME_ASKED = re.compile(r"\bwhat(?: is|'s) my name\b", re.IGNORECASE)
_CALL_ASKED = re.compile(r"\bcall (\w+)(?:\s*(\{.*\}))?", re.IGNORECASE | re.DOTALL)
_WORDS_PER_SENTENCE = 12
_WORDS = (
    *(
        "river",
        "stone",
        "light",
        "evening",
        "garden",
        "letter",
        "window",
        "quiet",
        "silver",
        "morning",
        "paper",
    ),
    *(
        "winter",
        "harbor",
        "velvet",
        "candle",
        "lantern",
        "maple",
        "echo",
        "thunder",
        "meadow",
        "copper",
        "island",
    ),
    *("feather", "orchard", "marble", "shadow", "amber", "violet", "compass", "willow", "ember", "tide"),
)
_EXAMPLES: dict[str, object] = {
    "string": "river", "integer": 7, "number": 0.5, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an answer ends: `max_tokens` as asked, `room` left in the context, `usual` length, `stops`."""

    max_tokens: int | None
    room: int
    usual: int
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `first` and `last` bound the answer tokens that spell its arguments."""

    id: str
    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Answer:
    """`ids` are the tokens generated; `pieces` the text that each contributes, as far as the client sees it.

    An answer that ends by itself has one more id than pieces: the end-of-answer token, which engines count.
    `stop` is the stop string that ended it, if one did.
    """

    ids: Tokens
    pieces: tuple[str, ...]
    finish: Finish
    stop: str | None = None
    call: Call | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The fragments of the tool call's arguments, in order."""
        return self.pieces[self.call.first : self.call.last] if self.call else ()


def answer(
    messages: Sequence[Message],
    *,
    limits: Limits,
    tools: Sequence[Tool] = (),
    choice: str | ToolChoice | None = None,
    seed: int | None = None,
) -> Answer:
    """The answer to a chat request. `max_tokens` is also the length of a sentence where it is given."""
    said = [text_of(message.content) for message in messages if message.role == "user"]
    last = said[-1] if said else ""
    drawn = draw(last, seed)
    call = wanted_call(last, tools=tools, choice=choice)
    if call is not None:
        identity = draw(f"{len(messages)} {last}", seed)
        return _call_answer(call, identity=f"{identity:016x}", limits=limits)
    if "name" in last.lower() and _NAME_ASKED.search(last):
        return ended(split(_recalled_name(said)), limits=limits)
    return sentence(drawn, limits=limits)


def draw(text: str, seed: int | None) -> int:
    """The number that an answer to `text` is drawn from."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), (seed or 0) % 2**64)


def sentence(seed: int, *, limits: Limits) -> Answer:
    """Words drawn by `seed`: exactly `max_tokens` tokens if given, else the usual number and an end."""
    length = limits.usual if limits.max_tokens is None else limits.max_tokens
    length = max(1, min(length, limits.room))
    pieces = []
    for place, word in enumerate(random.Random(seed).choices(_WORDS, k=length)):
        within = place % (_WORDS_PER_SENTENCE + 1)
        if within == _WORDS_PER_SENTENCE or 0 < place == length - 1:
            pieces.append(".")
        else:
            spelled = word.capitalize() if within == 0 else word
            pieces.append(f" {spelled}" if place else spelled)
    return ended(pieces, limits=limits)


def wanted_call(last: str, *, tools: Sequence[Tool], choice: str | ToolChoice | None) -> FunctionCall | None:
    """The call that is asked for: by `tool_choice`, or by "call NAME {arguments}" in the last message."""
    if not tools or choice == "none":
        return None
    functions = {tool.function.name: tool for tool in tools}
    said = _CALL_ASKED.search(last)
    spoken = said.group(2) if said else None
    if isinstance(choice, ToolChoice):
        name = choice.function.name
    elif said and said.group(1) in functions:
        name = said.group(1)
    elif choice == "required":
        name = next(iter(functions))
    else:
        return None
    tool = functions.get(name)
    return FunctionCall(name=name, arguments=spoken or _example_arguments(tool))


def ended(pieces: Sequence[str], *, limits: Limits, call: Call | None = None) -> Answer:
    """The answer that spells `pieces`, cut at a stop string, at `max_tokens` or at the end of the context."""
    stop, visible = _stopped(pieces, limits.stops)
    bound = limits.room if limits.max_tokens is None else min(limits.max_tokens, limits.room)
    if stop is not None and len(visible) <= bound:
        return Answer(ids_of(pieces[: len(visible)]), visible, "stop", stop)
    ids = ids_of(pieces[:bound])
    if len(pieces) >= bound:
        return Answer(ids, tuple(pieces[:bound]), "length", call=call)
    ids.append(END_OF_ANSWER)
    return Answer(ids, tuple(pieces), "tool_calls" if call else "stop", call=call)


def _stopped(pieces: Sequence[str], stops: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The first stop string found; the pieces up to the one that completes it, trimmed to the text before."""
    text = "".join(pieces)
    found = [(text.index(stop), stop) for stop in stops if stop and stop in text]
    if not found:
        return None, ()
    start, stop = min(found, key=lambda hit: hit[0] + len(hit[1]))
    visible: list[str] = []
    position = 0
    for piece in pieces:
        if position >= start + len(stop):
            break
        visible.append(piece[: max(0, start - position)])
        position += len(piece)
    return stop, tuple(visible)


def _recalled_name(said: Sequence[str]) -> str:
    for text in reversed(said):
        given = _NAME_GIVEN.search(text)
        if given:
            return f"Your name is {given.group(1)}."
    return "I do not know your name."


def _call_answer(wanted: FunctionCall, *, identity: str, limits: Limits) -> Answer:
    written = split(render_call(ToolCall(function=wanted)))
    head = len(split(render_call(ToolCall(function=FunctionCall(wanted.name, "")))))
    tail = len(split("}\n</tool_call>"))
    first = head - tail
    call = Call(id=identity, name=wanted.name, first=first, last=len(written) - tail)
    return ended(written, limits=Limits(limits.max_tokens, limits.room, limits.usual), call=call)


def _example_arguments(tool: Tool | None) -> str:
    if tool is None:
        return "{}"
    schema = msgspec.json.decode(tool.function.parameters, type=Parameters)
    names = schema.required or list(schema.properties)
    example = {name: _example(schema.properties.get(name, Property())) for name in names}
    return msgspec.json.encode(example).decode()


def _example(described: Property) -> object:
    kind = described.type if isinstance(described.type, str) else described.type[0]
    return _EXAMPLES.get(kind, "river")
