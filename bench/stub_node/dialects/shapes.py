"""The facts that a dialect puts into words, and the one shape that every dialect module has.

The wire shapes of vLLM 0.32 and llama.cpp are as seen from running servers, those of SGLang 0.5.23 as in
its sources and notes of a running server. Functions return plain objects; the caller encodes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bench.stub_node.adapters import Adapters
from bench.stub_node.answers import Answer
from bench.stub_node.refusal import Refusal

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """What stands in every chunk of one answer."""

    id: str
    object: str
    created: int
    model: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; `created` are prompt tokens newly stored in full blocks."""

    prompt: int
    cached: int | None
    """None where the engine was started without reporting it."""
    created: int
    completion: int


@dataclass(frozen=True, slots=True)
class Served:
    """The model that answers: the name that the answer shows, and what its prompts are cached under."""

    name: str
    cache_key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says about the model."""

    model: str | None
    lora_path: str | None


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a choice ended: the finish reason and the stop string, if one did it."""

    finish: str
    stop: str | None = None


class Dialect(Protocol):
    """One engine's way of speaking. `choose` and `check_length` raise Refused."""

    HEADERS_BEFORE_PREFILL: bool
    FINISH_WITH_LAST_TOKEN: bool
    ERROR_INSIDE_STREAM: bool

    def answer_id(self, headers: Mapping[str, str], *, chat: bool) -> str: ...

    def choose(self, asked: Asked, *, base: str, adapters: Adapters) -> Served: ...

    def check_length(self, prompt_tokens: int, max_tokens: int | None, *, limit: int) -> None: ...

    def error(self, refusal: Refusal) -> Json: ...

    def stream_error(self, refusal: Refusal) -> Json: ...

    def role_chunk(self, head: Head) -> Json: ...

    def chat_chunk(self, head: Head, delta: Json, ending: Ending | None = None) -> Json: ...

    def call_delta(self, identity: str, name: str) -> Json: ...

    def arguments_delta(self, fragment: str) -> Json: ...

    def text_chunk(self, head: Head, text: str, ending: Ending | None = None) -> Json: ...

    def usage_chunk(self, head: Head, usage: Usage) -> Json: ...

    def chat_answer(self, head: Head, answer: Answer, usage: Usage) -> Json: ...

    def text_answer(self, head: Head, answer: Answer, usage: Usage) -> Json: ...

    def models(self, base: str, adapters: Adapters, *, created: int, limit: int) -> Json: ...
