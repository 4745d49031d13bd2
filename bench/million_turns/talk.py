"""What is said: turns of realistic size in English and Chinese, with all that a gateway stores beside them.

A user's message has about 30 tokens and an answer about 120, both log-normal, at 4 characters to a token in
English and 1.5 in Chinese. The words come from the templates of `bench.needles`.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import msgspec

from gateway.advise.needles.generator import Language, small_talk, templates
from history.conversation import Binding, Memory, Reply, Turn
from history.message import digests, message

USER_TOKENS, ANSWER_TOKENS, PERSONA_TOKENS, SUMMARY_TOKENS = 30, 120, 300, 250
REGENERATED = 0.03
"""The share of turns with a second answer, which is kept as a branch."""
MODEL = "companion-8b-v3"

_FACTS = 12
_FACT_TOKENS = 12
_CHARS_PER_TOKEN = {"en": 4.0, "zh": 1.5}
_SPREAD = 0.6
_LINES = 2_000
_CHARACTERS = 40
_BEGAN = 1_760_000_000.0
_PAUSE_S = 1_800.0


@dataclass(frozen=True, slots=True)
class Lines:
    """Sentences to speak with: what users say and what characters answer."""

    between: str
    user: tuple[str, ...]
    answer: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """A turn, and the answers that it had before."""

    turn: Turn
    siblings: tuple[Turn, ...] = ()


class Speaker:
    """Both sides of one conversation. The same seed says the same."""

    def __init__(self, seed: str) -> None:
        self._dice = random.Random(seed)
        self._language: Language = "zh" if self._dice.random() < 0.5 else "en"
        self._lines = _lines(self._language)
        self._at = _BEGAN + self._dice.random() * 1e6

    def persona(self) -> bytes:
        """The system message of one of a few characters."""
        dice = random.Random(f"{self._language}/{self._dice.randrange(_CHARACTERS)}")
        text = self._text(self._lines.answer, PERSONA_TOKENS, dice)
        return message({"role": "system", "content": text}).json

    def said(self) -> Iterator[Said]:
        """Turns without end."""
        while True:
            if self._dice.random() < REGENERATED:
                asked = self._text(self._lines.user, USER_TOKENS)
                yield Said(self._turn(asked), (self._turn(asked),))
            else:
                yield Said(self.turn())

    def turn(self) -> Turn:
        """The next turn, as the gateway writes it."""
        return self._turn(self._text(self._lines.user, USER_TOKENS))

    def memory(self, covers_to: int, version: int) -> Memory:
        """A version of the memory."""
        return Memory(
            covers_to=covers_to,
            version=version,
            summary=self._text(self._lines.answer, SUMMARY_TOKENS),
            facts=tuple(self._text(self._lines.user, _FACT_TOKENS) for _ in range(_FACTS)),
            at=self._at,
        )

    def binding(self) -> Binding:
        """Where the KV lies after a turn."""
        return Binding(
            node=f"node-{self._dice.randrange(8)}",
            prefix=self._dice.randbytes(16),
            tokens=self._dice.randrange(1_000, 6_000),
            at=self._at,
        )

    def _turn(self, asked: str) -> Turn:
        dice = self._dice
        self._at += dice.expovariate(1 / _PAUSE_S)
        user = message({"role": "user", "content": asked})
        answer = message({"role": "assistant", "content": self._text(self._lines.answer, ANSWER_TOKENS)})
        completion = round(len(answer.json.decode()) / _CHARS_PER_TOKEN[self._language])
        prompt = dice.randrange(1_000, 6_000)
        reply = Reply(
            id=f"chatcmpl-{dice.randbytes(16).hex()}",
            model=MODEL,
            created=int(self._at),
            finish_reason="stop",
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=prompt - 40,
        )
        return Turn(
            messages=(user.json, answer.json),
            digests=digests((user, answer)),
            tokens=completion + USER_TOKENS,
            at=self._at,
            body_hash=dice.randbytes(16),
            reply=reply,
            mark=dice.randbytes(8),
        )

    def _text(self, lines: tuple[str, ...], tokens: float, dice: random.Random | None = None) -> str:
        dice = dice or self._dice
        mean = tokens * _CHARS_PER_TOKEN[self._language]
        wanted = mean * dice.lognormvariate(-_SPREAD * _SPREAD / 2, _SPREAD)
        found = [dice.choice(lines)]
        size = len(found[0])
        # The last sentence goes over by half its length on average, so it is begun only with half of it left.
        while size < wanted - len(found[-1]) / 2:
            found.append(dice.choice(lines))
            size += len(found[-1])
        return self._lines.between.join(found)


def text_bytes(turn: Turn) -> int:
    """What is said in a turn, as the JSON that goes into prompts."""
    return sum(map(len, turn.messages))


def tokens_said(turn: Turn) -> tuple[float, float]:
    """Tokens of the user's text and of the answer's, by their characters."""
    texts = [str(msgspec.json.decode(one)["content"]) for one in turn.messages]
    rate = _CHARS_PER_TOKEN["en" if all(text.isascii() for text in texts) else "zh"]
    return len(texts[0]) / rate, len(texts[-1]) / rate


@cache
def _lines(language: Language) -> Lines:
    told, dice = templates(language), random.Random(f"lines/{language}")
    exchanges = [small_talk(told, dice) for _ in range(_LINES)]
    return Lines(
        between=" " if told.spaced else "",
        user=tuple(one.user for one in exchanges),
        answer=tuple(one.reply for one in exchanges),
    )
