"""llama.cpp's server: one model under any name, sparse chunks, `timings` beside `usage`, no adapters."""

import random
from collections.abc import Mapping

from bench.stub_node.adapters import Adapters
from bench.stub_node.answers import Answer
from bench.stub_node.dialects.shapes import Asked, Ending, Head, Json, Served, Usage
from bench.stub_node.refusal import Refusal, Refused

HEADERS_BEFORE_PREFILL = False
FINISH_WITH_LAST_TOKEN = False
ERROR_INSIDE_STREAM = False

_FINGERPRINT = "b0-stub"
_OWN_WORDS = {"unauthorized": "Invalid API Key", "no_route": "File Not Found"}
_TYPES = {"too_long": "exceed_context_size_error", "unauthorized": "authentication_error"}
_TYPES_BY_STATUS = {
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def answer_id(headers: Mapping[str, str], *, chat: bool) -> str:  # noqa: ARG001  one shape for all dialects
    return f"chatcmpl-{random.getrandbits(128):032x}"


def choose(asked: Asked, *, base: str, adapters: Adapters) -> Served:  # noqa: ARG001  one shape for all dialects
    return Served(base)


def check_length(prompt_tokens: int, max_tokens: int | None, *, limit: int) -> None:  # noqa: ARG001  max_tokens is clamped
    if prompt_tokens >= limit:
        message = (
            f"request ({prompt_tokens} tokens) exceeds the available context size ({limit} tokens), "
            "try increasing it"
        )
        refusal = Refusal(400, "too_long", message, prompt_tokens=prompt_tokens, context_length=limit)
        raise Refused(refusal)


def error(refusal: Refusal) -> Json:
    kind = _TYPES.get(refusal.kind) or _TYPES_BY_STATUS.get(refusal.status, "invalid_request_error")
    message = _OWN_WORDS.get(refusal.kind, refusal.message)
    said: Json = {"code": refusal.status, "message": message, "type": kind}
    if refusal.kind == "too_long":
        said |= {"n_prompt_tokens": refusal.prompt_tokens, "n_ctx": refusal.context_length}
    return {"error": said}


def stream_error(refusal: Refusal) -> Json:
    return error(refusal)


def _envelope(head: Head, choices: list[Json]) -> Json:
    return {
        "choices": choices, "created": head.created, "id": head.id, "model": head.model,
        "system_fingerprint": _FINGERPRINT, "object": head.object,
    }  # fmt: skip


def role_chunk(head: Head) -> Json:
    return chat_chunk(head, {"role": "assistant", "content": None})


def chat_chunk(head: Head, delta: Json, ending: Ending | None = None) -> Json:
    return _envelope(head, [{"finish_reason": ending and ending.finish, "index": 0, "delta": delta}])


def call_delta(identity: str, name: str) -> Json:
    function = {"name": name, "arguments": ""}
    return {"tool_calls": [{"index": 0, "id": identity, "type": "function", "function": function}]}


def arguments_delta(fragment: str) -> Json:
    return {"tool_calls": [{"index": 0, "function": {"arguments": fragment}}]}


def text_chunk(head: Head, text: str, ending: Ending | None = None) -> Json:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": ending and ending.finish}
    return _envelope(head, [choice])


def usage_chunk(head: Head, usage: Usage) -> Json:
    return {**_envelope(head, []), "usage": _usage(usage), "timings": _timings(usage)}


def _usage(usage: Usage) -> Json:
    return {
        "completion_tokens": usage.completion,
        "prompt_tokens": usage.prompt,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": None if usage.cached is None else {"cached_tokens": usage.cached},
    }


def _timings(usage: Usage) -> Json:
    return {
        "cache_n": usage.cached,
        "prompt_n": usage.prompt - (usage.cached or 0),
        "predicted_n": usage.completion,
    }


def chat_answer(head: Head, answer: Answer, usage: Usage) -> Json:
    message: Json = {"role": "assistant", "content": None if answer.call else answer.text}
    if answer.call:
        function = {"name": answer.call.name, "arguments": "".join(answer.arguments)}
        message["tool_calls"] = [{"type": "function", "function": function, "id": answer.call.id}]
    choice = {"finish_reason": answer.finish, "index": 0, "message": message}
    return {**_envelope(head, [choice]), "usage": _usage(usage), "timings": _timings(usage)}


def text_answer(head: Head, answer: Answer, usage: Usage) -> Json:
    choice = {"text": answer.text, "index": 0, "logprobs": None, "finish_reason": answer.finish}
    return {**_envelope(head, [choice]), "usage": _usage(usage), "timings": _timings(usage)}


def models(base: str, adapters: Adapters, *, created: int, limit: int) -> Json:  # noqa: ARG001  one shape for all
    card = {
        "id": base, "aliases": [base], "object": "model", "created": created, "owned_by": "llamacpp",
        "meta": {"n_ctx": limit, "n_ctx_train": limit},
    }  # fmt: skip
    return {"object": "list", "data": [card]}
