"""Plays dialogues against an arm's entrances: everybody at their own pace, over real HTTP."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec

from bench.rivals.script import Script
from bench.rivals.tally import Turn
from bench.rivals.window import Keeping, messages
from history.window import WindowRule

_ANSWERED_WITHIN_S = 300.0
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=200, keepalive_expiry=3.0)


class Play(msgspec.Struct, frozen=True):
    """How the dialogues are played."""

    model: str
    keeping: Keeping
    rule: WindowRule
    answer_tokens: int
    pace: float
    """Seconds of the script to one second here."""
    streams: bool = True
    """Engines tell token ids of whole answers only."""


class Heard(msgspec.Struct):
    """Everybody's turns, and what went wrong."""

    dialogues: list[list[Turn]]
    faults: list[str]


async def play(
    people: Sequence[Script], entrances: Sequence[str], how: Play, on_turn: Callable[[], None]
) -> Heard:
    """Everybody talks at once; a dialogue's turns go round the entrances, as behind a balancer."""
    heard = Heard(dialogues=[[] for _ in people], faults=[])
    async with (
        httpx.AsyncClient(timeout=_ANSWERED_WITHIN_S, limits=_LIMITS, trust_env=False) as client,
        asyncio.TaskGroup() as everybody,
    ):
        for number, script in enumerate(people):
            one = _Person(script, number, entrances, how, client, heard)
            everybody.create_task(one.talk(on_turn))
    return heard


class _Person:
    """One side of one dialogue."""

    def __init__(
        self,
        script: Script,
        number: int,
        entrances: Sequence[str],
        how: Play,
        client: httpx.AsyncClient,
        heard: Heard,
    ) -> None:
        self._script, self._number, self._entrances, self._how = script, number, entrances, how
        self._client, self._heard = client, heard
        self._answers: list[str] = []

    async def talk(self, on_turn: Callable[[], None]) -> None:
        """Say it all. A turn that fails ends the dialogue: what comes after it would be another one."""
        for turn, gap in enumerate(self._script.gaps_s):
            await asyncio.sleep(gap / self._how.pace)
            entrance = self._entrances[(self._number + turn) % len(self._entrances)]
            try:
                told, answer = await self._ask(entrance)
            except (httpx.HTTPError, _RefusedError) as fault:
                self._heard.faults.append(
                    f"{self._script.name}, turn {turn}: {fault or type(fault).__name__}"
                )
                return
            self._answers.append(answer)
            self._heard.dialogues[self._number].append(told)
            on_turn()

    async def _ask(self, entrance: str) -> tuple[Turn, str]:
        url, began, told = f"{entrance}/v1/chat/completions", time.perf_counter(), _Told()
        if not self._how.streams:
            response = await self._client.post(url, json=self._body(), headers=self._headers())
            if response.status_code != httpx.codes.OK:
                raise _RefusedError(f"{response.status_code} {response.content[:200]!r}")
            told.take(response.json())
            return self._turn(told, response.headers, began), told.answer
        request = self._client.stream("POST", url, json=self._body(), headers=self._headers())
        async with request as response:
            if response.status_code != httpx.codes.OK:
                raise _RefusedError(f"{response.status_code} {(await response.aread())[:200]!r}")
            async for line in response.aiter_lines():
                told.read(line)
        return self._turn(told, response.headers, began), told.answer

    def _turn(self, told: "_Told", headers: httpx.Headers, began: float) -> Turn:
        if told.usage is None:
            raise _RefusedError("the answer ended without usage")
        expected = headers.get("x-friendo-cached-expected")
        return Turn(
            prompt=told.usage["prompt_tokens"],
            completion=told.usage["completion_tokens"],
            cached=(told.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            first_s=told.first_at - began,
            expected=None if expected is None else int(expected),
            route=headers.get("x-friendo-route", ""),
        )

    def _body(self) -> dict[str, Any]:
        how = self._how
        body: dict[str, Any] = {
            "model": how.model,
            "messages": messages(self._script, self._answers, how.keeping, how.rule),
            "max_tokens": how.answer_tokens,
            "temperature": 0,
        }
        if how.streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body if how.keeping == "gateway" else body | {"user": self._script.name}

    def _headers(self) -> dict[str, str]:
        """The dialogue's name, where this gateway reads it and where the sticky routers do."""
        name = self._script.name
        if self._how.keeping == "gateway":
            return {"x-session-id": name}
        return {"x-session-id": name, "x-smg-routing-key": name}


class _Told:
    """What a stream says, line by line."""

    def __init__(self) -> None:
        self.first_at = 0.0
        self.answer = ""
        self.usage: dict[str, Any] | None = None

    def read(self, line: str) -> None:
        """Take one line. Raises `_RefusedError` if it tells of an error."""
        if not line.startswith("data: ") or line == "data: [DONE]":
            return
        self.take(msgspec.json.decode(line[6:]))

    def take(self, said: dict[str, Any]) -> None:
        """Take an event, or a whole answer. Raises `_RefusedError` if it tells of an error."""
        if "error" in said:
            raise _RefusedError(str(said["error"])[:200])
        for choice in said["choices"]:
            self.first_at = self.first_at or time.perf_counter()
            self.answer += (choice.get("delta") or choice["message"]).get("content") or ""
        self.usage = said.get("usage") or self.usage


class _RefusedError(Exception):
    """An answer that is none."""
