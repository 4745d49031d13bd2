"""Whether requests may go to a node that answers its probes, by what came of the last ones.

    closed ── `OPENS_AFTER` failures in a row ──► open ── a probe succeeds ──► half-open
       ▲                                            ▲                              │
       │                                            └────── a request fails ───────┤
       └──────────────── a request is answered, one at a time until then ──────────┘

A node that serves what no other node does stays half-open instead of open: refusing everybody until the next
probe would be worse than trying with one. That holds for `TRIALS` failures; then it is open all the same.

A refusal for load (429, 503), a request that the engine finds wrong and a client that leaves say nothing
and change nothing. What was sent before the breaker opened says nothing of the node since.
"""

from typing import Literal

import msgspec

OPENS_AFTER = 2
TRIALS = 3
"""Requests that may fail, one at a time, on a node without a substitute before it has to wait for a probe."""

State = Literal["closed", "open", "half_open"]


class Breaker(msgspec.Struct, frozen=True):
    """One node's. `failures` are those in a row; `openings` tells what was sent before from what after."""

    state: State = "closed"
    failures: int = 0
    openings: int = 0


CLOSED = Breaker()


def failed(breaker: Breaker, *, since: int, is_only: bool = False) -> Breaker:
    """A request failed that was sent when `openings` was `since`. `is_only`: nobody could take over."""
    if since != breaker.openings or breaker.state == "open":
        return breaker
    failures = breaker.failures + 1
    if breaker.state == "half_open" or failures >= OPENS_AFTER:
        may_try = is_only and failures < OPENS_AFTER + TRIALS
        return Breaker("half_open" if may_try else "open", failures, breaker.openings + 1)
    return Breaker(breaker.state, failures, breaker.openings)


def began(breaker: Breaker) -> Breaker:
    """An answer began: the trial is passed, but until an answer is whole one more failure opens it again."""
    if breaker.state != "half_open":
        return breaker
    return msgspec.structs.replace(breaker, state="closed")


def answered(breaker: Breaker) -> Breaker:
    """A request was answered whole. While open that is an old one, and the probe decides."""
    if breaker.state == "open" or (breaker.state == "closed" and not breaker.failures):
        return breaker
    return Breaker("closed", 0, breaker.openings)


def probed(breaker: Breaker) -> Breaker:
    """A probe succeeded."""
    if breaker.state != "open":
        return breaker
    return Breaker("half_open", breaker.failures, breaker.openings)
