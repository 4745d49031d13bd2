"""What is learned from all answers together, for nodes of which little is known: rates and usual sizes."""

import math

import msgspec

FIRST_RATE = 2000.0
"""What a node is taken for before anything is known."""
_RATE_TOKENS = 256
"""Fewer tokens say more about the network than about a node."""
_MOST_RATE = 1e7
"""No accelerator computes a prompt so fast: what looks like it began to answer before it had."""
_PRIOR = 10
"""So many measurements of a node's own weigh as much as what is known of all."""
_LATELY_S = 300.0
_RESCALE_AT = 1e12


class Rate(msgspec.Struct, frozen=True, gc=False):
    """What a node itself showed."""

    seen: float = FIRST_RATE
    samples: int = 0


class Pace:
    """One replica's view of the fleet. Rates are prompt tokens computed per second."""

    def __init__(self) -> None:
        self.rate = FIRST_RATE
        self.samples = 0
        self.uncached = 500.0
        """Tokens that a prompt leaves to compute, on average."""
        self.answer = 100.0
        """Tokens of an answer, on average."""
        self._origin: float | None = None
        self._latest = 0.0

    def rate_of(self, known: Rate) -> float:
        """What a node is taken for that showed this itself."""
        return (known.samples * known.seen + _PRIOR * self.rate) / (known.samples + _PRIOR)

    def learned_size(self, uncached: int, answer: int) -> None:
        """An answer was complete."""
        self.uncached += 0.05 * (uncached - self.uncached)
        self.answer += 0.02 * (answer - self.answer)

    def learned_rate(self, known: Rate, uncached: int, seconds: float, *, was_alone: bool) -> Rate:
        """A node's rate after so many tokens were computed until the first byte, by the engine's count.

        Queueing only makes a rate look lower, so one that is higher than known is news in any case.
        """
        rate = uncached / seconds if seconds > 0 else 0.0
        if uncached < _RATE_TOKENS or not 0 < rate < _MOST_RATE or not (was_alone or rate > known.seen):
            return known
        self.samples += 1
        self.rate += max(0.02, 1 / self.samples) * (rate - self.rate)
        samples = known.samples + 1
        return Rate(seen=known.seen + max(0.1, 1 / samples) * (rate - known.seen), samples=samples)

    def scale(self, now: float) -> tuple[float, float]:
        """What a token of now weighs beside older ones, and what all sums so far are to be divided by first.

        Those of five minutes ago weigh a third. Weights grow instead of sums fading, so that nothing has to
        be done to nodes that get nothing.
        """
        if self._origin is None:
            self._origin = self._latest = now
        # Where time goes back, what was is as old as it was: else all that follows would weigh nothing.
        self._origin += min(0.0, now - self._latest)
        self._latest = now
        weight = math.exp(min(700.0, (now - self._origin) / _LATELY_S))
        if weight < _RESCALE_AT:
            return weight, 1.0
        self._origin = now
        return 1.0, weight
