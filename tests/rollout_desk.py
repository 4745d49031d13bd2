"""Rollouts as an operator and as users see them: the control plane of one gateway, and answers of any."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.gateway_process import Gateway

ANSWERED_WITHIN_S = 60.0
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 8,
    "bias": "none",
    "target_modules": ["q_proj", "v_proj"],
}


def write_weights(folder: Path, **other: Any) -> str:
    """A folder that a stub node and the gateway take for an adapter."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | other))
    return str(folder)


@dataclass(slots=True)
class Desk:
    """The control plane."""

    client: httpx.Client

    def start(self, alias: str, version: str, path: str, **fields: Any) -> httpx.Response:
        """Begin a rollout."""
        body = {"alias": alias, "version": version, "path": path, **fields}
        return self.client.post("/admin/rollouts", json=body)

    def do(self, what: str, alias: str, why: str = "") -> httpx.Response:
        """approve, widen or back."""
        return self.client.post(f"/admin/rollouts/{alias}/{what}", json={"by": "test", "why": why})

    def shown(self, alias: str) -> dict[str, Any]:
        """The rollout."""
        told: dict[str, Any] = self.client.get(f"/admin/rollouts/{alias}").raise_for_status().json()
        return told

    def report(self, alias: str) -> dict[str, Any]:
        """What was counted."""
        told: dict[str, Any] = self.client.get(f"/admin/rollouts/{alias}/report").raise_for_status().json()
        return told

    def state(self, alias: str) -> str:
        """In a word."""
        return str(self.shown(alias)["state"])

    def decisions(self, alias: str) -> list[str]:
        """What was decided, oldest first."""
        return [one["what"] for one in self.shown(alias)["history"]]

    def versions(self, alias: str) -> dict[str, list[str]]:
        """By node, what it has of them."""
        return {one["id"]: one["versions"] for one in self.shown(alias)["nodes"]}


@contextmanager
def desk(gateway: Gateway) -> Iterator[Desk]:
    """Of that gateway."""
    with httpx.Client(base_url=gateway.admin_url, timeout=ANSWERED_WITHIN_S, trust_env=False) as client:
        yield Desk(client)


@dataclass(slots=True)
class Answer:
    """What a user got."""

    status: int
    model: str
    version: str
    cached: int
    prompt: int
    text: str
    error: str


def say(gateway: Gateway, model: str, conversation: str, text: str = "hello", **fields: Any) -> Answer:
    """One message."""
    headers = fields.pop("headers", {})
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}
    if conversation:
        body["conversation"] = conversation
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json=body,
        headers=headers,
        timeout=ANSWERED_WITHIN_S,
        trust_env=False,
    )
    told = answer.json()
    usage = told.get("usage") or {}
    choices = told.get("choices") or [{"message": {}}]
    return Answer(
        status=answer.status_code,
        model=told.get("model", ""),
        version=answer.headers.get("x-friendo-version", ""),
        cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        prompt=usage.get("prompt_tokens", 0),
        text=choices[0]["message"].get("content") or "",
        error=(told.get("error") or {}).get("message", ""),
    )
