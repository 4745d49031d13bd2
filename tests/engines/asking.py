"""One question to the small model, through a gateway or straight to an engine."""

import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from bench.engines.launch import MODEL_NAME

ANSWERED_WITHIN_S = 180.0


@dataclass(slots=True)
class Said:
    """What came of it."""

    status: int = 0
    text: str = ""
    route: str = ""
    node: str = ""
    error: dict[str, Any] = field(default_factory=dict)
    """Of the envelope, or of an event inside the stream."""
    has_begun: bool = False
    is_whole: bool = False
    prompt: int = 0
    cached: int = 0

    def read(self, line: str) -> None:
        """Take a line of a stream."""
        if line == "data: [DONE]":
            self.is_whole = not self.error
        elif line.startswith("data: "):
            self.take(msgspec.json.decode(line[6:]))

    def take(self, told: dict[str, Any]) -> None:
        """Take an event, or a whole answer."""
        self.error = told.get("error") or self.error
        if usage := told.get("usage"):
            self.prompt = usage["prompt_tokens"]
            self.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        for choice in told.get("choices") or ():
            piece = (choice.get("delta") or choice.get("message") or {}).get("content") or ""
            self.has_begun, self.text = self.has_begun or bool(piece), self.text + piece


def ask(
    url: str,
    text: str,
    *,
    headers: dict[str, str] | None = None,
    before: tuple[dict[str, str], ...] = (),
    **fields: Any,
) -> Said:
    """Ask at `url`, with `before` in front of the question. Raises `httpx.HTTPError` if nobody answers."""
    body = {
        "model": MODEL_NAME,
        "messages": [*before, {"role": "user", "content": text}],
        "max_tokens": 8,
        "temperature": 0,
        **fields,
    }
    if body.get("stream"):
        body["stream_options"] = {"include_usage": True}
    said = Said()
    with (
        httpx.Client(base_url=url, timeout=ANSWERED_WITHIN_S, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        said.status, told = answer.status_code, answer.headers
        said.route, said.node = told.get("x-friendo-route", ""), told.get("x-friendo-node", "")
        if told["content-type"].startswith("text/event-stream"):
            for line in answer.iter_lines():
                said.read(line)
        else:
            said.take(msgspec.json.decode(answer.read()))
            said.is_whole = answer.status_code == 200
    return said


def asked_until(holds: Any, *, within_s: float, every_s: float = 0.2) -> bool:
    """Whether it comes to hold in time; whoever asks often keeps a processor from the engine."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(every_s)
    return True
