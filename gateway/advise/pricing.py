"""What a cached token costs on a node, against an uncached one: r0, measured in seconds.

A hit saves the prefill, but every token of the prompt is still read at each step of the answer. So:

    u   seconds per uncached token: new prompts of different length, one token of answer; the slope
    k   seconds per cached token: prompts that begin with different lengths of what is cached, the same new
        text behind it and an answer of the usual length; the slope over the cached length
    r0  k / u, between 0 and 1

Slopes are medians over rounds, so that what is the same for every request drops out. Requests go one at a
time: on a busy node both grow, and their ratio with the node's mixture of prefill and decode.
"""

import random
import secrets
import statistics
from collections.abc import Sequence

import msgspec

from gateway.advise.asking import NodeAsked

_WORDS = ("river", "stone", "lamp", "green", "seven", "quiet", "garden", "window", "paper", "north")
_NEW_WORDS = 32
_LEAST_R0 = 0.005
"""Below it nothing can be told from noise, and a price of nothing would have windows grow for ever."""


class Effort(msgspec.Struct, frozen=True):
    """How much is measured. Lengths in words, which are a token or two each."""

    uncached_words: tuple[int, int] = (128, 768)
    cached_words: tuple[int, int] = (256, 2048)
    rounds: int = 7
    answer_tokens: int = 64


class Prices(msgspec.Struct, frozen=True):
    """What was measured, and how."""

    r0: float
    r0_range: tuple[float, float]
    """The least and the greatest of the rounds."""
    uncached_s: float
    """Seconds per uncached token."""
    cached_s: float
    """Seconds per cached token, over an answer of `answer_tokens`."""
    overhead_s: float
    """Seconds until the first token that do not depend on the prompt."""
    answer_tokens: int
    was_cached: bool | None
    """Whether the node said that the prefix came from its cache; None: it says nothing."""
    requests: int

    @property
    def prefill_rate(self) -> float:
        """Uncached tokens per second."""
        return 1 / self.uncached_s if self.uncached_s > 0 else 0.0


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Completion(msgspec.Struct, frozen=True):
    usage: _Usage


class _Timed(msgspec.Struct, frozen=True):
    seconds: float
    tokens: int
    cached: int | None


async def priced(node: NodeAsked, *, seed: int, effort: Effort | None = None) -> Prices:
    """Measure a node. Raises `BadOption` where it does not answer as it should."""
    wanted = effort or Effort()
    meter = _Meter(node, random.Random(seed))
    await meter.timed(meter.text(8), 1)  # the first request pays for what is compiled or loaded late
    uncached = [await _uncached(meter, wanted) for _ in range(wanted.rounds)]
    slope = statistics.median(one for one, _ in uncached)
    if slope <= 0:
        raise node.fault(
            "/v1/chat/completions",
            "longer prompts did not take longer, so nothing can be priced; is the node under load?",
        )
    cached = [await _cached(meter, wanted) for _ in range(wanted.rounds)]
    ratios = sorted(min(1.0, max(_LEAST_R0, one / slope)) for one, _ in cached)
    known = [hit for _, hit in cached if hit is not None]
    return Prices(
        r0=statistics.median(ratios),
        r0_range=(ratios[0], ratios[-1]),
        uncached_s=slope,
        cached_s=statistics.median(one for one, _ in cached),
        overhead_s=max(0.0, statistics.median(rest for _, rest in uncached)),
        answer_tokens=wanted.answer_tokens,
        was_cached=all(known) if known else None,
        requests=meter.requests,
    )


class _Meter:
    """Asks and takes the time."""

    def __init__(self, node: NodeAsked, dice: random.Random) -> None:
        self._node = node
        self._dice = dice
        self.requests = 0

    def text(self, words: int) -> str:
        """So many words; no two texts begin alike, in any run, so that none is found in a cache."""
        return " ".join([secrets.token_hex(6), *self._dice.choices(_WORDS, k=words)])

    async def timed(self, text: str, answer: int) -> _Timed:
        """One request with an answer of exactly so many tokens."""
        self.requests += 1
        body: dict[str, object] = {
            "model": self._node.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": answer,
            "temperature": 0,
        }
        if self._node.engine != "openai":
            body["ignore_eos"] = True
        told = await self._node.post("/v1/chat/completions", body)
        try:
            usage = msgspec.json.decode(told.body, type=_Completion).usage
        except msgspec.DecodeError as error:
            raise self._node.fault("/v1/chat/completions", f"its answer has no usage ({error})") from error
        details = usage.prompt_tokens_details
        return _Timed(told.seconds, usage.prompt_tokens, details.cached_tokens if details else None)


async def _uncached(meter: _Meter, effort: Effort) -> tuple[float, float]:
    """Seconds per uncached token, and what is left without any."""
    short, long = [await meter.timed(meter.text(words), 1) for words in effort.uncached_words]
    slope = (long.seconds - short.seconds) / max(1, long.tokens - short.tokens)
    return slope, short.seconds - slope * short.tokens


async def _cached(meter: _Meter, effort: Effort) -> tuple[float, bool | None]:
    """Seconds per cached token, and whether it was cached, if the node tells."""
    timed: list[_Timed] = []
    for words in effort.cached_words:
        prefix = meter.text(words)
        await meter.timed(prefix, 1)
        timed.append(await meter.timed(f"{prefix} {meter.text(_NEW_WORDS)}", effort.answer_tokens))
    short, long = timed
    return (long.seconds - short.seconds) / max(1, long.tokens - short.tokens), _all_hit(timed)


def _all_hit(timed: Sequence[_Timed]) -> bool | None:
    """Whether more than half of each prompt came from the cache."""
    if any(one.cached is None for one in timed):
        return None
    return all((one.cached or 0) * 2 > one.tokens for one in timed)
