"""Traffic without dialogues: long system prompts, each shared by a few questions, at a rising rate.

The benchmark that llm-d published for caches that are nearly full: groups of 5 questions of 1,200 tokens
behind a system prompt of 6,000, answers of 1,000 tokens, asked at random and again and again. All prompts
together fill 73 % of the fleet's KV, so there is room for one copy of each and no more.
"""

import random
from collections.abc import Iterable, Iterator

import msgspec

from bench.fleet.prompt import Prompt, Request
from bench.fleet.simulation import Arrival


class Stage(msgspec.Struct, frozen=True):
    """A rate, for a while."""

    per_s: float
    seconds: float


class Questions(msgspec.Struct, frozen=True):
    """What is asked."""

    groups: int
    per_group: int = 5
    system_tokens: int = 6000
    question_tokens: int = 1200
    answer_tokens: int = 1000
    stages: tuple[Stage, ...] = ()
    block: int = 16
    measured_from: float = 0.0

    def tokens(self) -> int:
        """All different prompts together."""
        return self.groups * (self.system_tokens + self.per_group * self.question_tokens)


class SharedPrompts:
    """Poisson arrivals of random questions; nobody has a session."""

    def __init__(self, questions: Questions, *, seed: int) -> None:
        self._questions = questions
        self._seed = seed

    def begin(self) -> Iterator[Arrival]:
        """Everything, at its time."""
        dice = random.Random(self._seed)
        kinds = self._questions.groups * self._questions.per_group
        began = 0.0
        for stage in self._questions.stages:
            now = began + dice.expovariate(stage.per_s)
            began += stage.seconds
            while now < began:
                yield now, dice.randrange(kinds)
                now += dice.expovariate(stage.per_s)

    def request(self, source: object, now: float) -> Request:
        """One question."""
        assert isinstance(source, int)
        asked = self._questions
        group = source // asked.per_group
        tokens = asked.system_tokens + asked.question_tokens
        system = asked.system_tokens // asked.block
        own = asked.groups + 2 * source
        prompt = Prompt(
            tokens=tokens,
            extents=((group, system), (own, tokens // asked.block - system)),
            answer=-1 - int(now * 1e6),
            links=(b"s%d" % group, b"q%d" % source),
            heads=((b"s%d" % group, asked.system_tokens),),
        )
        return Request(
            prompt=prompt,
            output_tokens=asked.answer_tokens,
            key=own,
            is_measured=now >= asked.measured_from,
            source=source,
        )

    def ended(self, _: Request, __: float) -> Iterable[Arrival]:
        """Nothing follows."""
        return ()
