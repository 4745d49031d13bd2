"""One dialogue, turn by turn: what it sends in each arm, and what the engine says it had cached."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.cut_cost.stage import MODEL, Stage

_NAMES = ("Luna", "Nova", "Vega", "Lyra", "Mira", "Rhea", "Juno", "Iris", "Maia", "Thea")
_THINGS = (
    "a red boat",
    "an old lamp",
    "two grey cats",
    "the north gate",
    "a letter from Oslo",
    "my green coat",
)
ANSWER_TOKENS = 24
LOW, HIGH = 4, 8
"""The window, in every arm."""


@dataclass(frozen=True, slots=True)
class Row:
    """One turn by the engine's count; seconds from the request to the first piece of the answer."""

    turn: int
    prompt: int
    cached: int
    completion: int
    first_token_s: float
    tail: int = 0
    """Tokens behind the user's message, which are as new as it is."""

    @property
    def uncached(self) -> int:
        """Prompt tokens that had to be computed, but for the tail: of that nothing could be cached."""
        return self.prompt - self.cached - self.tail


@dataclass(slots=True)
class Dialogue:
    """A user who says one thing after the other. `rewrites`: keeps the history itself, and a summary of it
    that changes with every turn, as many clients do.
    """

    number: int
    rewrites: bool
    said: list[dict[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The character's, and the conversation's."""
        return f"{_NAMES[self.number % len(_NAMES)]}-{self.number}"

    def take_turn(self, client: httpx.Client, stage: Stage) -> None:
        """Say something and wait for the whole answer."""
        turn = len(self.rows)
        thing = _THINGS[(turn + self.number) % len(_THINGS)]
        text = (
            f"Part {turn}: today I saw {thing} near house {turn * 7 + self.number}. What do you make of it?"
        )
        user = {"role": "user", "content": text}
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": self._messages(user),
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not self.rewrites:
            body["conversation"] = self.name
        began, first, answer = time.perf_counter(), 0.0, ""
        usage: dict[str, Any] = {}
        with client.stream("POST", f"{stage.url}/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            for chunk in _chunks(response.iter_lines()):
                for choice in chunk["choices"]:
                    first = first or time.perf_counter() - began
                    answer += choice["delta"].get("content") or ""
                usage = chunk.get("usage") or usage
        self.said += [user, {"role": "assistant", "content": answer}]
        self.rows.append(
            Row(
                turn=turn,
                prompt=usage["prompt_tokens"],
                cached=usage["prompt_tokens_details"]["cached_tokens"],
                completion=usage["completion_tokens"],
                first_token_s=first,
                tail=0 if self.rewrites else stage.tokens(stage.ear.behind(self.name, text)),
            )
        )

    def _messages(self, user: dict[str, str]) -> Sequence[dict[str, str]]:
        persona = (
            f"You are {self.name}, a kind companion who lives by the sea. You answer in one short sentence."
        )
        if not self.rewrites:
            return [user] if self.rows else [{"role": "system", "content": persona}, user]
        count = len(self.rows)
        cycle = HIGH - LOW + 1
        cut = -(-max(0, count - HIGH) // cycle) * cycle
        # The newest thing said, in words that change every turn: what a rewritten summary is made of.
        summary = f"So far, in {count} exchanges: " + " ".join(
            message["content"][:60] for message in self.said[-6::2]
        )
        system = {"role": "system", "content": f"{persona}\n\n{summary}" if count else persona}
        return [system, *self.said[2 * cut :], user]


def _chunks(lines: Any) -> Any:
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))
