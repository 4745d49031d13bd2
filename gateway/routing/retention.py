"""How far back a node may be trusted to hold what was placed on it, by what its engine says of its cache.

Nothing here indexes the cache: the ledger knows what was placed where. From an engine's events follow four
moments, and a placement is judged by the time since it was made:

    cleared   it is older: the cache was dropped since, by a flush or a restart
    evicted   it is older than the youngest prefix that was evicted
    doubted   it is older than a moment of which the events are lost or unreadable
    vouched   it is younger than all these, and every event since it was made is known: it is held

The second rests on the order in which both engines evict: least recently used first, and of a prefix its last
block first. So what must be remembered of a cache is only the last block of each prefix, its leaf, with the
time of its last use; when a leaf goes, every prefix unused for longer has gone before it. A use that fills
not one new block is not announced: if that prefix goes, it is missed until the next leaf goes.

O(1) per event and per removed block; leaves are capped, and beyond the cap the longest unused are forgotten,
which only brings nearer the moment from which on the rest is vouched for.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import msgspec

BlockHash = int | bytes
State = Literal["unknown", "trusted", "suspect"]

_DEVICE = 1
_GROWTH = math.log(1.15)
_BUCKETS = 128
_RESCALE = 64.0
_LEAST_WEIGHT = 0.5
_RECKONED_EVERY_S = 1.0
_INSTANT = 0.001


class RetentionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an engine's events are read."""

    max_leaves: int = 65_536
    """Prefixes remembered per node, about 260 bytes each."""
    slack_s: float = 10.0
    """The longest time from a prefix's last full block to the moment its placement was noted."""
    quantile: float = 0.1
    """The horizon: the age that all but this share of the evicted prefixes had passed."""
    half_life_s: float = 900.0
    """After this time an eviction counts half as much for the horizon."""
    doubt_fades_s: float = 1800.0
    """How long a node is called suspect; a placement older than the doubt stays gated regardless."""


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the ledger may promise of placements that no event vouches for."""

    horizon_s: float = 1800.0
    """The age at which they are as likely evicted as not."""
    unknown: float = 1.0
    """The share that is believed where nothing speaks for or against them: the ledger's own word."""
    suspect: float = 0.0
    """The share that is believed of placements from before a doubt."""


class Knowledge(msgspec.Struct, frozen=True):
    """What is known of a node's cache at one moment. Ages in seconds before that moment."""

    state: State = "unknown"
    epoch: int = 0
    """Rises with every clear and restart that was noticed by this replica."""
    horizon_s: float | None = None
    """How long prefixes lately lay unused before they were evicted, a low quantile; None: none was."""
    vouched_s: float = 0.0
    """What was placed less than this ago is held, unless it was evicted."""
    cleared_s: float = math.inf
    evicted_s: float = math.inf
    doubted_s: float = math.inf


UNKNOWN = Knowledge()
"""Of a node without events."""
LIKELY = 0.5
"""The odds from which on something is expected."""
_FADING = 3
"""How sharply the odds fall around the horizon."""
_OPEN = Gates()


def odds(age_s: float, knowledge: Knowledge, gates: Gates = _OPEN) -> float:
    """How likely it is, 0..1, that what was placed `age_s` seconds ago is still there.

    Where no event tells: 1 / (1 + (age / horizon)^3), a half at the horizon, since caches under changing load
    do not lose everything at one age.
    """
    if age_s >= knowledge.cleared_s or age_s >= knowledge.evicted_s:
        return 0.0
    if age_s < knowledge.vouched_s:
        return 1.0
    horizon = gates.horizon_s if knowledge.horizon_s is None else min(gates.horizon_s, knowledge.horizon_s)
    share = gates.suspect if age_s >= knowledge.doubted_s else gates.unknown
    return share / (1.0 + min(10.0, age_s / horizon) ** _FADING) if horizon > 0 else 0.0


class Retention:
    """One node's cache as its events tell it. Times are steady seconds, none before the last."""

    def __init__(self, rules: RetentionRules | None = None) -> None:
        self._rules = rules or RetentionRules()
        self._leaves: OrderedDict[BlockHash, tuple[float, int]] = OrderedDict()
        self._ages = _Ages(self._rules.half_life_s)
        self._epoch = 0
        self._vouched_from: float | None = None
        self._cleared_at = -math.inf
        self._evicted_to = self._evicted_at = -math.inf
        self._doubts: tuple[float, float] | None = None
        self._lost_at: float | None = None
        self._is_foretold = False
        """Of a restart that its events will tell of again."""
        self._was_told = False
        """Of most nodes nothing ever is, and then nothing need be reckoned."""

    def __len__(self) -> int:
        """Leaves remembered."""
        return len(self._leaves)

    def joined(self, at: float) -> None:
        """Every event from `at` on is known, none before it."""
        self._was_told = True
        self._vouched_from = at + self._rules.slack_s

    def cleared(self, at: float) -> None:
        """The cache was empty at `at`, and every event since is known: a flush, or the engine's start."""
        self._was_told = True
        self._epoch += not self._is_foretold
        self._is_foretold = False
        self._cleared_at = self._vouched_from = max(at, self._cleared_at)
        self._leaves.clear()
        self._doubts = None

    def emptied(self, at: float) -> None:
        """The cache was empty at some moment up to `at`: the engine was restarted. No events vouch for it.

        If they come later, they begin with the same restart.
        """
        self._was_told = self._is_foretold = True
        self._epoch += 1
        self._cleared_at = max(at, self._cleared_at)
        self._vouched_from = None
        self._leaves.clear()
        self._doubts = None

    def stored(
        self, hashes: Sequence[BlockHash], parent: BlockHash | None, at: float, tier: int = _DEVICE
    ) -> None:
        """Blocks that follow `parent` and each other were computed, copied to another tier, or used again.

        `tier` is one bit; 1 is the accelerator's memory.
        """
        self._was_told = True
        leaves = self._leaves
        if tier != _DEVICE:
            for block in hashes:
                if block in leaves:
                    used, tiers = leaves[block]
                    leaves[block] = (used, tiers | tier)
            return
        if not hashes:
            return
        if parent is not None:
            leaves.pop(parent, None)
        _, tiers = leaves.pop(hashes[-1], (at, 0))
        leaves[hashes[-1]] = (at, tiers | _DEVICE)
        if len(leaves) > self._rules.max_leaves:
            self._forget()

    def removed(self, hashes: Sequence[BlockHash], at: float, tier: int = _DEVICE) -> None:
        """Blocks left a tier. A prefix is evicted when its leaf has left every tier."""
        self._was_told = True
        leaves = self._leaves
        for block in hashes:
            leaf = leaves.get(block)
            if leaf is None:
                continue
            used, tiers = leaf
            if tiers & ~tier:
                leaves[block] = (used, tiers & ~tier)
            elif tiers & tier:
                del leaves[block]
                self._ages.add(at - used, at)
                if used > self._evicted_to:
                    self._evicted_to, self._evicted_at = used, at

    def doubt(self, at: float) -> None:
        """Events from before `at` are lost, or something else says that the cache is not what it was."""
        self._was_told = True
        first = self._doubts[0] if self._doubts else at
        self._doubts = (first, at)
        if self._vouched_from is not None:
            self._vouched_from = max(self._vouched_from, at + self._rules.slack_s)

    def lost(self, at: float) -> None:
        """Events may be missed from now on: the connection is gone, and perhaps the engine."""
        self._was_told = True
        if self._lost_at is None:
            self._lost_at = at

    def regained(self) -> None:
        """Events come again. What was missed meanwhile, if anything was, has been told by other calls."""
        self._lost_at = None

    def confirmed(self, placed_at: float, asked_at: float) -> None:
        """A request sent at `asked_at` found cached what was placed at `placed_at` and not used since.

        So the cache was not cleared in between, whatever events were lost: doubts of that time are lifted.
        Nor was anything evicted that was used later, even if a single leaf went early.
        """
        if placed_at <= self._cleared_at:
            return
        if self._doubts and placed_at <= self._doubts[0] and self._doubts[1] <= asked_at:
            self._doubts = None
        if self._evicted_at < asked_at:
            self._evicted_to = min(self._evicted_to, placed_at - self._rules.slack_s - _INSTANT)

    def knowledge(self, now: float) -> Knowledge:
        """What may be said at `now`."""
        if not self._was_told:
            return UNKNOWN
        vouched_from = self._vouched_from if self._lost_at is None else None
        doubted_at = max(self._doubts[1] if self._doubts else -math.inf, self._lost_at or -math.inf)
        state: State = "unknown" if vouched_from is None else "trusted"
        return Knowledge(
            state="suspect" if now - doubted_at < self._rules.doubt_fades_s else state,
            epoch=self._epoch,
            horizon_s=self._ages.low(self._rules.quantile, now),
            vouched_s=0.0 if vouched_from is None else max(0.0, now - vouched_from),
            cleared_s=now - self._cleared_at,
            evicted_s=now - self._evicted_to - self._rules.slack_s,
            doubted_s=now - doubted_at,
        )

    def _forget(self) -> None:
        _, (used, _) = self._leaves.popitem(last=False)
        if self._vouched_from is not None:
            self._vouched_from = max(self._vouched_from, used + self._rules.slack_s)


class _Ages:
    """A histogram of ages in which older entries weigh less; buckets grow by 15 %."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life = half_life_s
        self._weights = [0.0] * _BUCKETS
        self._total = 0.0
        self._origin: float | None = None
        self._low: float | None = None
        self._reckoned_at = -math.inf
        self._is_stale = False

    def add(self, age_s: float, at: float) -> None:
        """One prefix was evicted at `at` after so long without use."""
        if self._origin is None:
            self._origin = at
        halvings = (at - self._origin) / self._half_life
        if halvings > _RESCALE:
            self._rescale(halvings, at)
            halvings = 0.0
        weight = 2.0**halvings
        bucket = int(math.log(age_s) / _GROWTH) if age_s > 1 else 0
        self._weights[min(bucket, _BUCKETS - 1)] += weight
        self._total += weight
        self._is_stale = True

    def low(self, quantile: float, now: float) -> float | None:
        """The age that all but this share had passed, rounded down; None without any recent entry."""
        if self._origin is None:
            return None
        if self._total * 2.0 ** min(0.0, (self._origin - now) / self._half_life) < _LEAST_WEIGHT:
            return None
        if self._is_stale and now - self._reckoned_at >= _RECKONED_EVERY_S:
            self._low, self._reckoned_at, self._is_stale = self._reckon(quantile), now, False
        return self._low

    def _reckon(self, quantile: float) -> float:
        below, wanted = 0.0, quantile * self._total
        for bucket, weight in enumerate(self._weights):
            below += weight
            if weight and below >= wanted:
                return math.exp(bucket * _GROWTH) if bucket else 0.0
        return 0.0

    def _rescale(self, halvings: float, at: float) -> None:
        """Count weights from `at` on, before they grow beyond what floats hold."""
        factor = 2.0 ** -min(halvings, 1000.0)
        self._weights = [weight * factor for weight in self._weights]
        self._total = sum(self._weights)
        self._origin = at
