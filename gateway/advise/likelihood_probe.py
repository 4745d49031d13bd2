"""Replies that were really given, scored by a model behind windows of different length.

The prompt (persona, the last N turns, the user's message) is rendered to token ids by the node's own chat
template, the reply's ids are put behind it, and the node is asked for the log-likelihood of what it was sent:

    vLLM      POST /tokenize {"messages"}, then /v1/completions {"prompt": ids, "prompt_logprobs": 1}
    SGLang    POST /tokenize {"messages"}, then /generate {"input_ids", "return_logprob", "logprob_start_len"}

llama.cpp's server tells the log-likelihood of what it generates, never of what it is sent; Ollama neither.
Ids and not text: nobody has to guess where the reply begins, and no template changes it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from gateway.advise.asking import NodeAsked, together
from gateway.advise.talk import Talk, answer_of
from gateway.errors import BadOption
from history.likelihood import Scored
from history.message import text_of

T = TypeVar("T")

WINDOWS = (1, 2, 3, 5, 8, 12, 20, 30, 40, 60)
_AT_ONCE = 4
_MOST_REPLY_TOKENS = 512
_ROOM = 8
_LEAST_TURNS = 4


class Held(msgspec.Struct, frozen=True):
    """A reply that is held out, and what was said before it."""

    dialogue: str
    turn: int
    character: str
    head: tuple[bytes, ...]
    """The persona, if there is one."""
    before: tuple[tuple[bytes, ...], ...]
    """The turns before, oldest first."""
    asked: tuple[bytes, ...]
    """The turn's own messages before its answer."""
    reply: str


class _Ids(msgspec.Struct, frozen=True):
    tokens: list[int]
    max_model_len: int | None = None


class _VllmLogprob(msgspec.Struct, frozen=True):
    logprob: float


class _VllmChoice(msgspec.Struct, frozen=True):
    prompt_logprobs: list[dict[str, _VllmLogprob] | None]


class _VllmAnswer(msgspec.Struct, frozen=True):
    choices: list[_VllmChoice]


class _SglangMeta(msgspec.Struct, frozen=True):
    input_token_logprobs: list[tuple[float | None, int, str | None]]


class _SglangAnswer(msgspec.Struct, frozen=True):
    meta_info: _SglangMeta


def held_out(talk: Talk, name: str, *, per_dialogue: int, most_turns: int) -> list[Held]:
    """Replies of one dialogue, spread over its later part: most have `most_turns` turns before them."""
    answered = [
        at
        for at, turn in enumerate(talk.turns)
        if at >= _LEAST_TURNS and turn.status == "complete" and _reply(talk, at)
    ]
    deep = [at for at in answered if at >= most_turns] or answered[-per_dialogue:]
    spacing = max(1, len(deep) // per_dialogue)
    return [_held(talk, name, at, most_turns) for at in deep[::-1][::spacing][:per_dialogue]]


class LikelihoodProbe:
    """Scores replies on one node. `context`: tokens that its model takes, as far as the node says."""

    def __init__(self, node: NodeAsked) -> None:
        if node.engine == "openai":
            raise BadOption(
                "--quality needs the log-likelihood of what a node is sent, which llama.cpp's and Ollama's "
                "servers do not tell: use --node vllm=URL or --node sglang=URL"
            )
        self._node = node
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self.context: int | None = None

    async def scores(self, held: Iterable[Held], windows: Sequence[int]) -> AsyncIterator[Scored]:
        """Each reply's log-likelihood behind windows of these lengths, one reply after the other.

        Windows that do not fit the model's context are left out. Raises `BadOption`.
        """
        for one in held:
            reply = (await self._ids({"prompt": one.reply, "add_special_tokens": False})).tokens
            reply = reply[:_MOST_REPLY_TOKENS]
            lengths = sorted({min(n, len(one.before)) for n in windows})
            told = await together(self._nats(one, n, reply) for n in lengths)
            found = dict(zip(lengths, told, strict=True))
            # A window longer than the dialogue shows all of it.
            nats = {n: found[min(n, len(one.before))] for n in windows}
            yield Scored(
                one.dialogue,
                one.turn,
                one.character,
                len(reply),
                {n: value for n, value in nats.items() if value is not None},
            )

    async def _nats(self, held: Held, turns: int, reply: list[int]) -> float | None:
        shown = held.before[len(held.before) - turns :]
        messages = [
            msgspec.json.decode(one)
            for one in (*held.head, *(message for turn in shown for message in turn), *held.asked)
        ]
        async with self._gate:
            prompt = await self._ids({"messages": messages, "add_generation_prompt": True})
            self.context = prompt.max_model_len or self.context
            ids = [*prompt.tokens, *reply]
            if self.context is not None and 0 < self.context < len(ids) + _ROOM:
                return None
            values = await (self._vllm(ids) if self._node.engine == "vllm" else self._sglang(ids, len(reply)))
        told = values[len(values) - len(reply) :]
        if len(told) < len(reply) or any(value is None for value in told):
            raise self._node.fault("its answer", "it has no log-likelihood for some of the reply's tokens")
        return sum(value for value in told if value is not None)

    async def _vllm(self, ids: list[int]) -> list[float | None]:
        body = {"prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
        told = await self._told("/v1/completions", body, _VllmAnswer)
        rows = told.choices[0].prompt_logprobs
        return [row[str(id_)].logprob if row else None for id_, row in zip(ids, rows, strict=True)]

    async def _sglang(self, ids: list[int], count: int) -> list[float | None]:
        body = {
            "input_ids": ids,
            "sampling_params": {"max_new_tokens": 1, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": max(0, len(ids) - count - 1),
        }
        told = await self._told("/generate", body, _SglangAnswer)
        return [value for value, _, _ in told.meta_info.input_token_logprobs]

    async def _ids(self, body: dict[str, Any]) -> _Ids:
        return await self._told("/tokenize", body, _Ids)

    async def _told(self, path: str, body: dict[str, Any], kind: type[T]) -> T:
        told = await self._node.post(path, {"model": self._node.model, **body})
        try:
            return msgspec.json.decode(told.body, type=kind)
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            raise self._node.fault(path, f"this is not what {self._node.engine} answers ({error})") from error


def _reply(talk: Talk, at: int) -> str:
    turn = talk.turns[at]
    answer = answer_of(turn)
    return text_of(turn.messages[answer]).strip() if answer == len(turn.messages) - 1 else ""


def _held(talk: Talk, name: str, at: int, most_turns: int) -> Held:
    first = talk.sketch.turn_count - len(talk.turns)
    return Held(
        dialogue=name,
        turn=first + at,
        character=talk.sketch.character,
        head=(talk.persona,) if talk.persona else (),
        before=tuple(turn.messages for turn in talk.turns[max(0, at - most_turns) : at]),
        asked=talk.turns[at].messages[:-1],
        reply=_reply(talk, at),
    )
