"""The frame of a request: everything but its messages that decides how its prompt is rendered. Pure.

Two prompts can share a prefix only in the same frame, so whatever the gateway sends in the background for a
conversation goes in the frame of the conversation's own requests.
"""

import msgspec
from msgspec.structs import replace

from gateway.request import ChatRequest

_SHAPING = frozenset(
    {
        "tools", "functions", "documents", "chat_template", "chat_template_kwargs", "reasoning_effort",
        "add_special_tokens", "mm_processor_kwargs",
    }
)  # fmt: skip


def frame_of(request: ChatRequest) -> ChatRequest:
    """The request without its messages, and without what rules the answer only."""
    fields = {name: raw for name, raw in request.fields.items() if name in _SHAPING}
    return replace(
        request, fields=fields, messages=b"[]", stream=False, wants_usage=False, conversation=None, version=""
    )


def background_request(frame: ChatRequest, *, max_tokens: int, model: str = "") -> ChatRequest:
    """A request in this frame whose answer is short, plain and the same every time."""
    fields = {
        **frame.fields,
        "max_tokens": msgspec.Raw(b"%d" % max_tokens),
        "temperature": msgspec.Raw(b"0"),
    }
    if "tools" in fields:
        # They are part of the prompt, but nobody is there to run one.
        fields["tool_choice"] = msgspec.Raw(b'"none"')
    return replace(frame, fields=fields, model=model or frame.model)
