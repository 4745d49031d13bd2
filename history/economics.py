"""What a window costs: the closed form. Pure; money and seconds both come as *uncached-token units*.

One unit is what one prompt token costs that no cache had. A stepped window grows from L = `min_turns` to
H = `max_turns` turns and then drops c = H - L + 1 at once. With the facts below, per turn:

    U = u + (L d + M) / c + B / 2             tokens that are computed although nothing was lost
    P = S + M + u + d (L + (c - 1) / 2)       tokens of the mean prompt
    C = (1 - r) U + r P + sigma / c           the price;  r = r0 + p_cold (1 - r0)

C is convex in c, so its derivative's only zero is the best step:

    c* = sqrt(2 [(1 - r) (L d + M) + sigma] / (r d)),    H* = L + c* - 1

Derived by us (docs/adr/0017): a cut re-reads L d + M tokens once in c turns, a longer window holds d more
tokens in every prompt. Output tokens cost the same under every window and are left out.
"""

from math import ceil, floor, inf, sqrt

import msgspec


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Means of the traffic, in tokens, and prices, in units of one uncached token."""

    persona_tokens: float = 800.0
    """S: the persona, and whatever else never changes at the head."""
    summary_tokens: float = 200.0
    """M: the summary and the facts, which change only at a cut."""
    user_tokens: float = 40.0
    """u: a user's message."""
    turn_tokens: float = 160.0
    """d: what one more turn adds to every later prompt: message and answer."""
    answer_tokens: float = 120.0
    """a: an answer. No window changes its price; the retention of a cache depends on it."""
    sigma: float = 0.0
    """What one summary call costs, without the part that is the same for every step (`summary_price`)."""
    r0: float = 0.1
    """A cached token against an uncached one."""
    p_cold: float = 0.0
    """The chance that the KV is gone when the next message comes."""
    block: int = 16
    """B: the engine's block of tokens. Only whole blocks are found again."""

    def __post_init__(self) -> None:
        for name in ("persona_tokens", "summary_tokens", "user_tokens", "answer_tokens", "sigma"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("r0", "p_cold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 < self.turn_tokens < inf:
            raise ValueError(f"turn_tokens must be positive, got {self.turn_tokens}")
        if self.block < 1:
            raise ValueError(f"block must be 1 or more, got {self.block}")


def holding_price(r0: float, p_cold: float) -> float:
    """r: what it costs to have one more token in the prompt for a turn, in units of an uncached one.

    It is read from the cache (r0), or computed again where the cache has lost it (1).
    """
    return r0 + p_cold * (1 - r0)


def uncached_tokens(facts: Facts, min_turns: int, max_turns: int) -> float:
    """U: tokens computed per turn where the KV is still there."""
    step = _step(min_turns, max_turns)
    return facts.user_tokens + _cut_tokens(facts, min_turns) / step + facts.block / 2


def mean_prompt(facts: Facts, min_turns: int, max_turns: int) -> float:
    """P: tokens of the mean prompt, of a dialogue that has been cut before."""
    window = facts.turn_tokens * (min_turns + (_step(min_turns, max_turns) - 1) / 2)
    return facts.persona_tokens + facts.summary_tokens + facts.user_tokens + window


def hit_rate(facts: Facts, min_turns: int, max_turns: int) -> float:
    """The share of prompt tokens that come from the cache, those of cold turns included; never below 0."""
    warm = 1 - uncached_tokens(facts, min_turns, max_turns) / mean_prompt(facts, min_turns, max_turns)
    return max(0.0, warm) * (1 - facts.p_cold)


def cost_per_turn(facts: Facts, min_turns: int, max_turns: int) -> float:
    """C: what a turn's prompt costs, in uncached-token units, the summary's share included."""
    r = holding_price(facts.r0, facts.p_cold)
    uncached = uncached_tokens(facts, min_turns, max_turns)
    prompt = mean_prompt(facts, min_turns, max_turns)
    return (1 - r) * uncached + r * prompt + facts.sigma / _step(min_turns, max_turns)


def best_step(facts: Facts, min_turns: int) -> float:
    """c*: how many turns one cut should drop, at least 1. Infinite where holding tokens costs nothing."""
    r = holding_price(facts.r0, facts.p_cold)
    if r == 0:
        return inf
    once = (1 - r) * _cut_tokens(facts, min_turns) + facts.sigma
    return max(1.0, sqrt(2 * once / (r * facts.turn_tokens)))


def best_max_turns(facts: Facts, min_turns: int, bounds: tuple[int, int]) -> int:
    """H*: the `max_turns` within `bounds` (both included) of the least `cost_per_turn`.

    `bounds` that begin below `min_turns` begin there. Raises `ValueError` where no window is left.
    """
    low, high = max(bounds[0], min_turns), bounds[1]
    if low > high:
        raise ValueError(f"no max_turns of at least {min_turns} lies within {bounds[0]} to {bounds[1]}")
    best = min_turns + best_step(facts, min_turns) - 1
    if best >= high:
        return high
    near = {max(low, floor(best)), max(low, ceil(best))}  # convex: the best whole number is beside it
    return min(sorted(near), key=lambda turns: cost_per_turn(facts, min_turns, turns))


def summary_price(
    facts: Facts, min_turns: int, *, instruction_tokens: float, output_price: float, is_fork: bool = True
) -> float:
    """sigma: what one summary call costs, in uncached-token units, as `Facts` wants it.

    A *fork* continues the live prompt, so it reads that from the cache: r0 (S + M + d (L + c - 1)) for the
    prompt at the cut. Its part r0 d c, divided by c, is the same for every step and left out here. A separate
    call computes its part anew: M + d c, with the same left out. `output_price` is a token of output.
    """
    written = facts.summary_tokens * output_price + instruction_tokens
    if not is_fork:
        return written + facts.summary_tokens
    window = facts.turn_tokens * (min_turns - 1)
    return written + facts.r0 * (facts.persona_tokens + facts.summary_tokens + window)


def retention_s(
    pool_tokens: float, turns_per_s: float, facts: Facts, min_turns: int, max_turns: int
) -> float:
    """How old a prefix can get in an LRU cache of `pool_tokens`, in seconds; infinite without traffic.

    Every turn writes what was not there: its uncached tokens, or all of the prompt where it comes cold, and
    its answer. When a pool's worth has been written, what lay untouched is gone.
    """
    warm, cold = uncached_tokens(facts, min_turns, max_turns), mean_prompt(facts, min_turns, max_turns)
    computed = (1 - facts.p_cold) * warm + facts.p_cold * cold
    written = turns_per_s * (computed + facts.answer_tokens)
    return pool_tokens / written if written > 0 else inf


def _step(min_turns: int, max_turns: int) -> int:
    if not 1 <= min_turns <= max_turns:
        raise ValueError(f"1 <= min_turns <= max_turns must hold, got {min_turns} and {max_turns}")
    return max_turns - min_turns + 1


def _cut_tokens(facts: Facts, min_turns: int) -> float:
    return min_turns * facts.turn_tokens + facts.summary_tokens
