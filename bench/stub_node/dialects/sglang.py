"""SGLang 0.5.23: flat errors, any model name answered by the base model, adapters as "anything:adapter"."""

import random
from collections.abc import Mapping

from bench.stub_node.adapters import Adapters
from bench.stub_node.answers import Answer
from bench.stub_node.dialects.shapes import Asked, Ending, Head, Json, Served, Usage
from bench.stub_node.refusal import Refusal, Refused
from bench.stub_node.tokens import END_OF_ANSWER

HEADERS_BEFORE_PREFILL = True
FINISH_WITH_LAST_TOKEN = False
ERROR_INSIDE_STREAM = True

_TYPES = {"bad_body": "Bad Request", "queue_full": "503"}


def answer_id(headers: Mapping[str, str], *, chat: bool) -> str:  # noqa: ARG001  one shape for all dialects
    return f"{random.getrandbits(128):032x}"


def choose(asked: Asked, *, base: str, adapters: Adapters) -> Served:
    shown = asked.model or "default"
    _, colon, wanted = shown.rpartition(":")
    name = wanted if colon and shown != base else asked.lora_path
    if not name:
        return Served(shown)
    adapter = adapters.get(name)
    if adapter is None:
        loaded = ", ".join(a.name for a in adapters)
        message = f"Got LoRA adapter that has never been loaded: {name}\nAll loaded adapters: {loaded}."
        raise Refused(Refusal(400, "bad_request", message))
    return Served(shown, ("lora", str(adapter.serial)))


def check_length(prompt_tokens: int, max_tokens: int | None, *, limit: int) -> None:
    if max_tokens is not None and max_tokens > limit:
        message = (
            f"max_completion_tokens is too large: {max_tokens}."
            f"This model supports at most {limit} completion tokens."
        )
        raise Refused(Refusal(400, "too_long", message))
    if prompt_tokens >= limit:
        message = (
            f"The input ({prompt_tokens} tokens) is longer than the model's context length ({limit} tokens)."
        )
        raise Refused(Refusal(400, "too_long", message))
    if max_tokens is not None and prompt_tokens + max_tokens > limit:
        message = (
            f"Requested token count exceeds the model's maximum context length of {limit} tokens. You "
            f"requested a total of {prompt_tokens + max_tokens} tokens: {prompt_tokens} tokens from the "
            f"input messages and {max_tokens} tokens for the completion. Please reduce the number of tokens "
            "in the input messages or the completion to fit within the limit."
        )
        raise Refused(Refusal(400, "too_long", message))


def error(refusal: Refusal) -> Json:
    if refusal.kind == "unauthorized":
        return {"error": "Unauthorized"}
    if refusal.kind == "no_route":
        return {"detail": refusal.message}
    return _flat(refusal, kind=_TYPES.get(refusal.kind, "BadRequestError"))


def stream_error(refusal: Refusal) -> Json:
    return {"error": _flat(refusal, kind="SERVICE_UNAVAILABLE")}


def _flat(refusal: Refusal, *, kind: str) -> Json:
    return {
        "object": "error",
        "message": refusal.message,
        "type": kind,
        "param": refusal.param,
        "code": refusal.status,
    }


def _chunk(head: Head, choices: list[Json]) -> Json:
    return {
        "id": head.id, "object": head.object, "created": head.created, "model": head.model,
        "choices": choices,
    }  # fmt: skip


def role_chunk(head: Head) -> Json:
    return chat_chunk(head, {"role": "assistant", "content": ""})


def chat_chunk(head: Head, delta: Json, ending: Ending | None = None) -> Json:
    choice: Json = {
        "index": 0,
        "delta": {"reasoning_content": None, **delta},
        "logprobs": None,
        "finish_reason": ending and ending.finish,
        "matched_stop": ending and _matched(ending.finish, ending.stop),
    }
    return _chunk(head, [choice])


def call_delta(identity: str, name: str) -> Json:
    function = {"name": name, "arguments": ""}
    return {"tool_calls": [{"id": f"call_{identity}", "index": 0, "type": "function", "function": function}]}


def arguments_delta(fragment: str) -> Json:
    function = {"name": None, "arguments": fragment}
    return {"tool_calls": [{"id": None, "index": 0, "type": "function", "function": function}]}


def text_chunk(head: Head, text: str, ending: Ending | None = None) -> Json:
    choice: Json = {
        "index": 0,
        "text": text,
        "logprobs": None,
        "finish_reason": ending and ending.finish,
        "matched_stop": ending and _matched(ending.finish, ending.stop),
    }
    return _chunk(head, [choice])


def _matched(finish: str, stop: str | None) -> str | int | None:
    """The stop string, or the id of the end token, that ended the answer."""
    return END_OF_ANSWER if stop is None and finish != "length" else stop


def usage_chunk(head: Head, usage: Usage) -> Json:
    return {**_chunk(head, []), "usage": _usage(usage)}


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt,
        "total_tokens": usage.prompt + usage.completion,
        "completion_tokens": usage.completion,
        "prompt_tokens_details": None if usage.cached is None else {"cached_tokens": usage.cached},
        "reasoning_tokens": 0,
    }


def _answer(head: Head, choice: Json, usage: Usage) -> Json:
    return {**_chunk(head, [choice]), "usage": _usage(usage), "metadata": {"weight_version": "default"}}


def chat_answer(head: Head, answer: Answer, usage: Usage) -> Json:
    message: Json = {
        "role": "assistant",
        "content": None if answer.call else answer.text,
        "reasoning_content": None,
    }
    if answer.call:
        function = {"name": answer.call.name, "arguments": "".join(answer.arguments)}
        message["tool_calls"] = [
            {"id": f"call_{answer.call.id}", "index": 0, "type": "function", "function": function}
        ]
    choice = {
        "index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish,
        "matched_stop": _matched(answer.finish, answer.stop),
    }  # fmt: skip
    return _answer(head, choice, usage)


def text_answer(head: Head, answer: Answer, usage: Usage) -> Json:
    choice = {
        "index": 0, "text": answer.text, "logprobs": None, "finish_reason": answer.finish,
        "matched_stop": _matched(answer.finish, answer.stop),
    }  # fmt: skip
    return _answer(head, choice, usage)


def models(base: str, adapters: Adapters, *, created: int, limit: int) -> Json:
    cards = [_card(base, created=created, root=base, parent=None, limit=limit)]
    cards += [_card(a.name, created=created, root=a.path, parent=base, limit=None) for a in adapters]
    return {"object": "list", "data": cards}


def _card(name: str, *, created: int, root: str, parent: str | None, limit: int | None) -> Json:
    return {
        "id": name, "object": "model", "created": created, "owned_by": "sglang", "root": root,
        "parent": parent, "max_model_len": limit,
    }  # fmt: skip
