"""The token counts that an engine reports, as far as they can be. What cannot be is unknown. Pure.

Counts teach how fast nodes are and how long prompts are, so one answer with a wrong one would spoil the
choice for minutes. An answer is no worse for it: it goes to the client as it is.
"""

from typing import Any

import msgspec

_TEMPLATE_TOKENS = 4096
"""What a chat template may put around the messages."""
_LONGEST = 10_000_000
"""No model takes a longer prompt. For prompts with pictures or sound, whose tokens no length tells."""
_MEDIA = (b'"image_url"', b'"input_audio"', b'"video_url"', b'"audio_url"', b'"file"')


class Usage(msgspec.Struct, frozen=True):
    """What was counted; 0 and None where the engine does not say, or says what cannot be."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int | None = None
    """Prompt tokens served from the node's prefix cache."""
    is_odd: bool = False
    """Whether it said something that cannot be."""

    def within(self, prompt_tokens: int, completion_tokens: int) -> "Usage":
        """The counts that are no more than these."""
        if self.prompt_tokens > prompt_tokens:
            return Usage(is_odd=True)
        if self.completion_tokens > completion_tokens:
            return msgspec.structs.replace(self, completion_tokens=0, is_odd=True)
        return self


def read_usage(raw: bytes) -> Usage:
    """The counts in the value of an answer's `usage`, whatever stands there."""
    try:
        fields: Any = msgspec.json.decode(raw) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Usage(is_odd=True)
    if fields is None:
        return Usage()
    if not isinstance(fields, dict):
        return Usage(is_odd=True)
    details = fields.get("prompt_tokens_details")
    told = details.get("cached_tokens") if isinstance(details, dict) else None
    counts = [_count(fields.get("prompt_tokens")), _count(fields.get("completion_tokens")), _count(told)]
    prompt, answer, cached = (max(one, 0) if one is not None else None for one in counts)
    is_odd = -1 in counts or (cached or 0) > (prompt or 0)
    return Usage(
        prompt_tokens=prompt or 0,
        completion_tokens=answer or 0,
        cached=None if counts[2] == -1 or (cached or 0) > (prompt or 0) else cached,
        is_odd=is_odd,
    )


def most_prompt_tokens(body: bytes, context: int | None) -> int:
    """How many tokens the prompt of a request can have: the model's context, or one for each of its bytes."""
    if context:
        return context
    return _LONGEST if any(kind in body for kind in _MEDIA) else len(body) + _TEMPLATE_TOKENS


def _count(value: object) -> int | None:
    """The number; -1 for what is none, None for nothing."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and value <= _LONGEST:
        value = int(value)
    return value if type(value) is int and value >= 0 else -1
