"""The request bodies that the engines accept, and how a body becomes one of them.

Fields that change neither the prompt nor the answer of a stub (temperature, penalties, metadata) are
accepted and dropped, as on a real node that runs without weights they would have nothing to act on.
"""

from typing import Any, TypeVar

import msgspec

from bench.stub_node.refusal import Refusal, Refused


class Part(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


class FunctionCall(msgspec.Struct, frozen=True):
    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True):
    function: FunctionCall
    id: str = ""
    type: str = "function"


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None


class Property(msgspec.Struct, frozen=True):
    type: str | list[str] = "string"


class Parameters(msgspec.Struct, frozen=True):
    properties: dict[str, Property] = {}
    required: list[str] = []


class Function(msgspec.Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class Tool(msgspec.Struct, frozen=True):
    function: Function
    type: str = "function"


class NamedFunction(msgspec.Struct, frozen=True):
    name: str


class ToolChoice(msgspec.Struct, frozen=True):
    function: NamedFunction


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = False


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What chat and text completion requests have in common."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = 1
    cache_salt: str | None = None
    extra_key: str | None = None
    lora_path: str | None = None
    priority: int | None = None


class ChatRequest(Generation, frozen=True, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None


class TextRequest(Generation, frozen=True, kw_only=True):
    prompt: str | list[str | int]


class EmbeddingRequest(msgspec.Struct, frozen=True):
    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: str | None = "float"
    dimensions: int | None = None


class TokenizeRequest(msgspec.Struct, frozen=True):
    prompt: str | None = None
    content: str | None = None
    messages: list[Message] | None = None
    add_generation_prompt: bool = True


class AdapterRequest(msgspec.Struct, frozen=True):
    lora_name: str
    lora_path: str | None = None
    load_inplace: bool = False


Body = TypeVar("Body")


def decode(raw: bytes, kind: type[Body]) -> Body:
    """The body as `kind`. Raises Refused (400) with what is wrong and where."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Refusal(400, "bad_body", str(error))) from error


def encode(value: Any) -> bytes:  # the engines' answers have no common type
    return msgspec.json.encode(value)
