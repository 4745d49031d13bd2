"""A deterministic tokenizer and a ChatML-like chat template.

Two promises, on which every hit rate measured with the stub rests:

- append-only dialogues give append-only prompts: when the answer and the next message are appended, the old
  prompt is a strict prefix of the new one, token by token;
- the tokens of a text do not depend on what stands around it, as long as a line break or a control token
  stands between, so a generated answer comes back as exactly the tokens that were generated.

A piece is a run of up to eight Latin letters or three digits, or one other character; a single space before
it belongs to it. As in a real tokenizer, a control token written inside a text becomes a control token.
"""

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import xxhash

from bench.stub_node.wire import Message, Part, ToolCall

Tokens: TypeAlias = "array[int]"

IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
END_OF_ANSWER = 2
"""The id of `<|im_end|>`: the last token that is generated when an answer ends by itself."""

_CONTROL_IDS = {IM_START: 1, IM_END: END_OF_ANSWER}
_FIRST_HASHED_ID = 16
_LONGEST_REMEMBERED = 16_384
_PIECE = re.compile(
    r"<\|im_start\|>|<\|im_end\|>"
    r"| ?[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]{1,8}"
    r"| ?[0-9]{1,3}"
    r"| ?(?!<\|im_(?:start|end)\|>)[^\s\w]"
    r"|.",
    re.DOTALL,
)


@lru_cache(maxsize=65_536)
def piece_id(piece: str) -> int:
    """The 32-bit id of one piece; the same in every process."""
    control = _CONTROL_IDS.get(piece)
    if control is not None:
        return control
    return max(_FIRST_HASHED_ID, xxhash.xxh32_intdigest(piece.encode("utf-8", "surrogatepass")))


def split(text: str) -> list[str]:
    """The pieces of a text; joined, they are the text again."""
    return _PIECE.findall(text)


def ids_of(pieces: Iterable[str]) -> Tokens:
    return array("I", map(piece_id, pieces))


def encode(text: str) -> Tokens:
    return ids_of(split(text))


def text_of(content: str | Sequence[Part] | None) -> str:
    """The text of a message's content; a part that is not text stands as its type in angle brackets."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(part.text if part.type == "text" else f"<{part.type}>" for part in content)


def render_call(call: ToolCall) -> str:
    """A tool call as the model writes it; the arguments stand verbatim."""
    return (
        f'<tool_call>\n{{"name":"{call.function.name}","arguments":{call.function.arguments}}}\n</tool_call>'
    )


def render(messages: Sequence[Message], *, tools: Sequence[str] = (), answer_next: bool = True) -> str:
    """The prompt as text. `tools` are JSON texts; `answer_next` adds the head of the answer to come."""
    return "".join(_blocks(messages, tools=tools, answer_next=answer_next))


def prompt(messages: Sequence[Message], *, tools: Sequence[str] = (), answer_next: bool = True) -> Tokens:
    """The prompt as tokens: `encode(render(...))`, at the cost of the messages not seen lately."""
    ids = array("I")
    for block in _blocks(messages, tools=tools, answer_next=answer_next):
        ids.frombytes(_remembered(block) if len(block) <= _LONGEST_REMEMBERED else encode(block).tobytes())
    return ids


def _blocks(messages: Sequence[Message], *, tools: Sequence[str], answer_next: bool) -> Iterator[str]:
    if tools:
        yield _block("system", "# Tools\n" + "\n".join(tools))
    for message in messages:
        parts = [text_of(message.content), *map(render_call, message.tool_calls or ())]
        yield _block(message.role, "\n".join(part for part in parts if part))
    if answer_next:
        yield f"{IM_START}assistant\n"


def _block(role: str, text: str) -> str:
    return f"{IM_START}{role}\n{text}{IM_END}\n"


@lru_cache(maxsize=4096)
def _remembered(block: str) -> bytes:
    return encode(block).tobytes()
