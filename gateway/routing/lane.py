"""One node as the price sees it: what this replica has under way there, and how fast it goes.

Two kinds of numbers. What happened is counted (`sent`, `left`, `polled`); what follows from it for the price
is worked out before the next choice (`settle`), so that choosing among a thousand nodes only reads five
numbers of each:

    wait(now) = max(until - now, floor, now - since) + max(0, foreign_until - now)
    price     = wait + aside + per_token * uncached                                   in seconds

`until` is when what was sent is computed at the node's rate, `floor` what stands behind the prompt it works
on, and `since` lets the wait grow with the age of the oldest prompt that should have been answered by now, or
with the time in which the node, by its own count, has computed nothing: a node that answers nobody looks
worse by the second, whatever it was believed to do.
"""

import math

from gateway.routing.pace import FIRST_RATE, Pace, Rate

_EVICTING = 4.0
"""What a token costs beside itself where another is evicted for it. With the probability p that one comes
back it is computed again and evicts one more: p + p^2 + ... = p / (1 - p), with p = 0.8.
"""
_FILLING = 0.5
"""The same while nothing is evicted yet: the room that it takes will be missed later."""
_RUNNING_S = 1e-5
"""What a request costs one that decodes beside it, in seconds per token of its answer."""


class Lane:
    """The state. Times are steady seconds, tokens those that a node has to compute."""

    __slots__ = (
        "_moved_at",
        "_polled_at",
        "_progress",
        "_stalled",
        "_unanswered",
        "_was_running",
        "aside",
        "floor",
        "foreign",
        "foreign_until",
        "lately",
        "pending",
        "per_token",
        "rate",
        "running",
        "since",
        "until",
    )

    def __init__(self) -> None:
        self._unanswered: dict[int, tuple[float, int, bool]] = {}
        """By number, the oldest first: when it was sent, its tokens, whether its first byte will tell."""
        self._moved_at = 0.0
        self.pending = 0
        """Tokens of prompts sent there that have no byte yet."""
        self.foreign = 0
        """Requests in its queue that are not this replica's, as of the last poll."""
        self.foreign_until = 0.0
        """When these are computed: what a node said a moment ago must not be held against it for long."""
        self._polled_at = 0.0
        self._progress: int | None = None
        self._was_running = False
        self._stalled = math.inf
        """Since when it computes nothing, by its own count, although something runs there."""
        self.running = 0
        """Requests it works on, whoever sent them, as of the last poll."""
        self.rate = Rate()
        self.lately = 0.0
        """Tokens of all prompts sent there of late (`Pace.scale`)."""
        self.until = 0.0
        self.floor = 0.0
        self.since = math.inf
        self.aside = 0.0
        self.per_token = 1 / FIRST_RATE

    def is_alone(self) -> bool:
        """Whether a prompt that is sent now waits for nobody, as far as is known."""
        return not self._unanswered and not self.foreign

    def wait(self, now: float) -> float:
        """Seconds until what is under way has its first byte."""
        return max(self.until - now, self.floor, now - self.since) + max(0.0, self.foreign_until - now)

    def price(self, tokens: int, now: float) -> float:
        """What everybody waits for if so many tokens are to be computed there as well, in seconds."""
        return self.wait(now) + self.aside + self.per_token * tokens

    def sent(self, number: int, tokens: int, now: float, *, tells: bool) -> None:
        """A prompt is on its way. `tells`: its first byte will be seen, not only its end."""
        if not self._unanswered:
            self._moved_at = now
        self._unanswered[number] = (now, tokens, tells)
        self.pending += tokens

    def left(self, number: int, now: float) -> None:
        """Its first byte came, or it is over. What was sent before it and does not tell is computed too."""
        if number not in self._unanswered:
            return
        _, tokens, tells = self._unanswered.pop(number)
        self.pending -= tokens
        self._moved_at = now
        if tells:
            for other in [key for key, sent in self._unanswered.items() if key < number and not sent[2]]:
                self.pending -= self._unanswered.pop(other)[1]

    def polled(self, waiting: int | None, running: int | None, now: float) -> None:
        """What the node says of its queue and of what it works on; None: nothing."""
        self._polled_at = now
        self.foreign = max(0, (waiting or 0) - len(self._unanswered))
        self.running = running or 0

    def progressed(self, progress: int | None, now: float, *, is_running: bool) -> None:
        """At a poll: whether it has computed anything since the last one, of what ran there all the time.

        Whole answers have no first byte by which a node that is stuck could be told.
        """
        is_still = progress is not None and progress == self._progress and is_running and self._was_running
        self._stalled = min(self._stalled, now) if is_still else math.inf
        self._progress, self._was_running = progress, is_running

    def settle(self, pace: Pace, now: float, *, is_full: bool, running: int) -> None:
        """Work out the price's numbers. `is_full`: what is computed there evicts as much.

        `running`: this replica's own requests on it.
        """
        rate = pace.rate_of(self.rate)
        self._pass_over(rate, now)
        waiting = len(self._unanswered) + self.foreign
        self.per_token = (1.0 + (_EVICTING if is_full else _FILLING) + waiting) / rate
        self.aside = _RUNNING_S * pace.answer * max(running, self.running)
        self.foreign_until = self._polled_at + self.foreign * pace.uncached / rate
        if not self._unanswered:
            self.until, self.floor, self.since = 0.0, 0.0, self._stalled
            return
        at, first, tells = next(iter(self._unanswered.values()))
        self.until = self._moved_at + self.pending / rate
        self.floor = (self.pending - first) / rate
        overdue = at + first / rate if tells else math.inf
        # A long prompt that is being computed looks the same until it should be done.
        self.since = min(overdue, max(self._stalled, self.until))

    def _pass_over(self, rate: float, now: float) -> None:
        """Prompts of which only the end is told count as computed when they should be."""
        while self._unanswered:
            number, (_, tokens, tells) = next(iter(self._unanswered.items()))
            if tells or now - self._moved_at < tokens / rate:
                return
            del self._unanswered[number]
            self.pending -= tokens
            self._moved_at += tokens / rate
