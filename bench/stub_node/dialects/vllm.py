"""vLLM 0.32: nested errors with an integer code, null fields left in, unknown models refused."""

import random
from collections.abc import Mapping

from bench.stub_node.adapters import Adapters
from bench.stub_node.answers import Answer
from bench.stub_node.dialects.shapes import Asked, Ending, Head, Json, Served, Usage
from bench.stub_node.refusal import Refusal, Refused

HEADERS_BEFORE_PREFILL = True
FINISH_WITH_LAST_TOKEN = True
ERROR_INSIDE_STREAM = False

_FINGERPRINT = "vllm-0.32.0-stub"
_BUSY = (
    "The engine is currently busy and cannot accept new requests. "
    "Please try again later or on a different instance."
)
_TYPES = {
    "bad_body": "Bad Request",
    "bad_request": "BadRequestError",
    "too_long": "BadRequestError",
    "unknown_model": "NotFoundError",
    "user_input": "InvalidUserInput",
    "queue_full": "Service Unavailable",
}
_TYPES_BY_STATUS = {
    400: "BadRequestError",
    404: "NotFoundError",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


def answer_id(headers: Mapping[str, str], *, chat: bool) -> str:
    """The caller's `x-request-id` becomes part of the answer's id, as in vLLM."""
    kind = "chatcmpl" if chat else "cmpl"
    return f"{kind}-{headers.get('x-request-id') or f'{random.getrandbits(64):016x}'}"


def choose(asked: Asked, *, base: str, adapters: Adapters) -> Served:
    if asked.model is None or asked.model in ("", base):
        return Served(base)
    adapter = adapters.get(asked.model)
    if adapter is None:
        message = f"The model `{asked.model}` does not exist. Valid aliases: {base}."
        raise Refused(Refusal(404, "unknown_model", message, param="model"))
    return Served(adapter.name, ("lora", adapter.name, adapter.path))


def check_length(prompt_tokens: int, max_tokens: int | None, *, limit: int) -> None:
    if max_tokens is not None and max_tokens > limit:
        message = (
            f"max_tokens={max_tokens} cannot be greater than max_model_len={limit}. "
            f"Please request fewer output tokens. (parameter=max_tokens, value={max_tokens})"
        )
        raise Refused(Refusal(400, "too_long", message, param="max_tokens"))
    if prompt_tokens >= limit:
        message = (
            f"This model's maximum context length is {limit} tokens. However, your prompt contains "
            f"{prompt_tokens} input tokens, which exceeds this limit even without any output tokens. Please "
            f"reduce the length of the input prompt. (parameter=input_tokens, value={prompt_tokens})"
        )
        raise Refused(Refusal(400, "too_long", message, param="input_tokens"))


def error(refusal: Refusal) -> Json:
    if refusal.kind == "unauthorized":
        return {"error": "Unauthorized"}
    if refusal.kind == "no_route":
        return {"detail": refusal.message}
    kind = _TYPES.get(refusal.kind) or _TYPES_BY_STATUS.get(refusal.status, "InternalServerError")
    message = _BUSY if refusal.kind == "queue_full" else refusal.message
    return {"error": {"message": message, "type": kind, "param": refusal.param, "code": refusal.status}}


def stream_error(refusal: Refusal) -> Json:
    return error(refusal)


def _chunk(head: Head, choices: list[Json]) -> Json:
    return {
        "id": head.id, "object": head.object, "created": head.created, "model": head.model,
        "choices": choices,
    }  # fmt: skip


def role_chunk(head: Head) -> Json:
    delta = {"role": "assistant", "content": ""}
    choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return {**_chunk(head, [choice]), "prompt_token_ids": None, "prompt_text": None}


def chat_chunk(head: Head, delta: Json, ending: Ending | None = None) -> Json:
    choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    if ending is not None:
        choice |= {"finish_reason": ending.finish, "stop_reason": ending.stop}
    choice["token_ids"] = None
    chunk = _chunk(head, [choice])
    return chunk if ending is None else {**chunk, "system_fingerprint": _FINGERPRINT}


def call_delta(identity: str, name: str) -> Json:
    function = {"name": name, "arguments": ""}
    return {
        "tool_calls": [
            {"id": f"chatcmpl-tool-{identity}", "type": "function", "index": 0, "function": function}
        ]
    }


def arguments_delta(fragment: str) -> Json:
    return {"tool_calls": [{"index": 0, "function": {"arguments": fragment}}]}


def text_chunk(head: Head, text: str, ending: Ending | None = None) -> Json:
    choice: Json = {
        "index": 0, "text": text, "logprobs": None, "finish_reason": ending and ending.finish,
        "stop_reason": ending and ending.stop, "prompt_token_ids": None, "token_ids": None,
    }  # fmt: skip
    return _chunk(head, [choice])


def usage_chunk(head: Head, usage: Usage) -> Json:
    return {**_chunk(head, []), "usage": _usage(usage), "system_fingerprint": _FINGERPRINT}


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt,
        "total_tokens": usage.prompt + usage.completion,
        "completion_tokens": usage.completion,
        "prompt_tokens_details": None
        if usage.cached is None
        else {"cached_tokens": usage.cached, "created_cache_tokens": usage.created},
    }


def _answer(head: Head, choice: Json, usage: Usage) -> Json:
    counted = _usage(usage)
    if counted["prompt_tokens_details"] is not None:
        counted["prompt_tokens_details"]["multimodal_tokens"] = None
    counted["completion_tokens_details"] = None
    return {
        **_chunk(head, [choice]),
        "service_tier": None, "system_fingerprint": _FINGERPRINT, "usage": counted, "prompt_logprobs": None,
        "prompt_token_ids": None, "prompt_text": None, "kv_transfer_params": None, "ec_transfer_params": None,
        "metrics": None,
    }  # fmt: skip


def chat_answer(head: Head, answer: Answer, usage: Usage) -> Json:
    message: Json = {
        "role": "assistant", "content": None if answer.call else answer.text, "refusal": None,
        "annotations": None, "audio": None, "function_call": None, "reasoning": None,
    }  # fmt: skip
    if answer.call:
        function = {"name": answer.call.name, "arguments": "".join(answer.arguments)}
        message["tool_calls"] = [
            {"id": f"chatcmpl-tool-{answer.call.id}", "type": "function", "function": function}
        ]
    choice = {
        "index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish,
        "stop_reason": answer.stop, "token_ids": None, "routed_experts": None,
    }  # fmt: skip
    return _answer(head, choice, usage)


def text_answer(head: Head, answer: Answer, usage: Usage) -> Json:
    choice = {
        "index": 0, "text": answer.text, "logprobs": None, "finish_reason": answer.finish,
        "stop_reason": answer.stop, "token_ids": None, "prompt_logprobs": None, "prompt_token_ids": None,
        "routed_experts": None,
    }  # fmt: skip
    return _answer(head, choice, usage)


def models(base: str, adapters: Adapters, *, created: int, limit: int) -> Json:
    cards = [_card(base, created=created, root=base, parent=None, limit=limit)]
    cards += [_card(a.name, created=created, root=a.path, parent=base, limit=None) for a in adapters]
    return {"object": "list", "data": cards}


def _card(name: str, *, created: int, root: str, parent: str | None, limit: int | None) -> Json:
    return {
        "id": name, "object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": parent,
        "max_model_len": limit, "permission": [],
    }  # fmt: skip
