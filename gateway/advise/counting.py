"""Tokens counted by a node's own tokenizer, where the engine's usage is not stored with a turn."""

import asyncio
from collections.abc import Sequence

import msgspec

from gateway.advise.asking import NodeAnswer, NodeAsked, together
from gateway.advise.talk import answer_of
from history.conversation import Turn
from history.message import text_of
from history.sketch import Sized, sized

_AT_ONCE = 8
_DIFFERENT = 4
"""What a chat template puts around a message, where the node does not render chats for us."""


class _Counted(msgspec.Struct, frozen=True):
    tokens: list[int]


class TokenCounter:
    """Asks `/tokenize`, which vLLM, SGLang and llama.cpp have, each with its own field for the text."""

    def __init__(self, node: NodeAsked) -> None:
        self._node = node
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._around = _DIFFERENT
        self.asked = 0

    async def start(self) -> None:
        """See whether it counts at all, and what a template puts around a message. Raises `BadOption`."""
        await self.count("Hello.")
        if self._node.engine == "vllm":
            talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}] * 2
            short, long = [await self._chat(talk[:count]) for count in (2, 4)]
            self._around = max(0, (long - short) // 2 - await self.count("a"))

    async def count(self, text: str) -> int:
        """Tokens of a text, without those that begin and end a sequence."""
        field = "content" if self._node.engine == "openai" else "prompt"
        body = {"model": self._node.model, field: text, "add_special_tokens": False}
        return len((await self._tokens(body)).tokens)

    async def message(self, message: bytes) -> int:
        """Tokens that a message takes in a prompt."""
        text = text_of(message)
        return self._around + (await self.count(text) if text else 0)

    async def sizes(self, turns: Sequence[Turn]) -> list[Sized]:
        """The sizes of turns, counted where they are not stored."""
        return await together(self._sized(turn) for turn in turns)

    async def _sized(self, turn: Turn) -> Sized:
        known = sized(turn)
        if known.is_measured:
            return known
        counts = [await self.message(message) for message in turn.messages]
        answer = answer_of(turn)
        answered = counts[answer] if answer >= 0 else 0
        return Sized(sum(counts) - answered, answered, turn.at)

    async def _chat(self, messages: list[dict[str, str]]) -> int:
        body = {"model": self._node.model, "messages": messages, "add_generation_prompt": False}
        return len((await self._tokens(body)).tokens)

    async def _tokens(self, body: dict[str, object]) -> _Counted:
        async with self._gate:
            self.asked += 1
            answer: NodeAnswer = await self._node.post("/tokenize", body)
        try:
            return msgspec.json.decode(answer.body, type=_Counted)
        except msgspec.DecodeError as error:
            raise self._node.fault("/tokenize", f"its answer has no list of tokens ({error})") from error
