"""What a node's events let the ledger promise is never more than the node holds, whatever the network does.

The truth is the stub node's block cache: chained blocks, reference counts, least recently used goes first. A
small engine serves conversations over it and publishes what changes; batches are lost, repeated, delayed
past later ones (never past the end of their connection) and sent again by a replay that may have holes; the
engine is flushed and restarted. Gates are shut (nothing is promised on the ledger's own word), so that only
what the events vouch for is measured.
"""

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.stub_node.cache import BlockCache, Lease
from bench.stub_node.kv_forms import Cleared, Event, KvForm, Removed, Stored
from gateway.nodes.kv_events import Frame
from gateway.nodes.kv_sequence import Ask, KvSequence
from gateway.routing.retention import Gates, Retention, RetentionRules
from tests.promised import promise

BLOCK = 4
PERSONA = (1, 2)
SHUT = Gates(unknown=0.0, suspect=0.0)
OPEN = Gates(horizon_s=math.inf, unknown=1.0, suspect=1.0)
FORM = KvForm()


@dataclass(frozen=True, slots=True)
class Placement:
    """What the ledger noted at the end of a turn."""

    at: float
    chain: tuple[int, ...]

    def held_in(self, stored: frozenset[int]) -> int:
        """Tokens of it that a cache with these blocks still has."""
        missing = next(
            (place for place, block in enumerate(self.chain) if block not in stored), len(self.chain)
        )
        return missing * BLOCK


@dataclass(frozen=True, slots=True)
class Published:
    """A batch, and what the cache held when it was sent."""

    frame: Frame
    at: float
    stored: frozenset[int]


@dataclass(slots=True)
class Turn:
    """A request under way."""

    chain: tuple[int, ...]
    lease: Lease
    asked_at: float


@dataclass(slots=True)
class Engine:
    """Serves conversations out of a small cache and publishes every change; its clock is ahead of ours."""

    blocks: int
    skew: float
    now: float = 1000.0
    sent: list[Published] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    chains: dict[int, tuple[int, ...]] = field(default_factory=dict)
    turns: dict[int, Turn] = field(default_factory=dict)
    made: int = 100
    cache: BlockCache = field(init=False)

    def __post_init__(self) -> None:
        self.cache = BlockCache(block_size=BLOCK, capacity=self.blocks)

    @property
    def stored(self) -> frozenset[int]:
        return frozenset(self.cache._free) | frozenset(self.cache._holders)

    def publish(self, *events: Event) -> Published:
        payload = FORM.encode(self.now + self.skew, events)
        batch = Published(Frame(seq=len(self.sent), payload=payload), self.now, self.stored)
        self.sent.append(batch)
        return batch

    def begin(self, conversation: int, grow: int, keep: int) -> Published | None:
        """Prefill: the chain without its last `keep` blocks (another branch), and `grow` new ones."""
        if conversation in self.turns:
            return None
        chain = self.chains.get(conversation, PERSONA)
        chain = chain[: max(len(PERSONA), len(chain) - keep)] + self._fresh(grow)
        if len(chain) + 1 > self.blocks:
            chain = PERSONA + self._fresh(1)
        before = self.stored
        size = len(chain) * BLOCK
        lease = self.cache.acquire(chain, prompt_tokens=size + 1, total_tokens=size + BLOCK)
        if lease is None:
            return None
        self.turns[conversation] = Turn(chain, lease, self.now)
        return self._store(conversation, before)

    def end(self, conversation: int) -> tuple[Published, Placement]:
        """The answer fills one more block; then the blocks are given back and the placement is noted."""
        turn = self.turns[conversation]
        turn.chain += self._fresh(1)
        batch = self._store(conversation, self.stored)
        self.cache.release(turn.lease)
        del self.turns[conversation]
        self.chains[conversation] = turn.chain
        placement = Placement(self.now, turn.chain)
        self.placements.append(placement)
        return batch, placement

    def clear(self) -> Published | None:
        """A flush; engines refuse it while they run anything."""
        if self.turns:
            return None
        self.cache.clear()
        return self.publish(Cleared())

    def restart(self) -> None:
        self.cache = BlockCache(block_size=BLOCK, capacity=self.blocks)
        self.turns.clear()
        self.sent = []

    def _fresh(self, count: int) -> tuple[int, ...]:
        self.made += count
        return tuple(range(self.made - count, self.made))

    def _store(self, conversation: int, before: frozenset[int]) -> Published:
        turn = self.turns[conversation]
        known = len(turn.lease.held)
        self.cache.store(turn.lease, turn.chain)
        fresh = turn.chain[known:]
        parent = turn.chain[known - 1] if known else None
        gone = sorted(before - self.stored)
        events: list[Event] = [Removed([block]) for block in gone]
        if fresh:
            events.append(Stored(fresh, parent, BLOCK))
        return self.publish(*events)


@dataclass(slots=True)
class Follower:
    """This side: takes what the network lets through, and asks for replays where there are any."""

    engine: Engine
    sequence: KvSequence
    replay_holes: frozenset[int] | None
    """Which batches, modulo 7, a replay lacks; None: there is no replay."""
    newest: Published | None = None
    """The batch up to which this side knows."""

    def deliver(self, batch: Published) -> None:
        now = self.engine.now
        ask = self.sequence.take(batch.frame, now)
        if ask is not None:
            deque(self.sequence.fill(self._replay(ask), now), maxlen=0)
        if self.newest is None or batch.at >= self.newest.at:
            self.newest = batch

    def _replay(self, ask: Ask) -> list[Frame]:
        holes = self.replay_holes
        if holes is None:
            return []
        kept = [batch.frame for batch in self.engine.sent[ask.start :]]
        return [frame for frame in kept if frame.seq % 7 not in holes]

    def promised(self, placement: Placement, gates: Gates = SHUT) -> int:
        now = self.engine.now
        knowledge = self.sequence.retention.knowledge(now)
        return promise(len(placement.chain) * BLOCK, now - placement.at, knowledge, gates)

    def check(self) -> None:
        """Of every placement that this side has news about, no more is promised than was there."""
        if self.newest is None:
            return
        for placement in self.engine.placements:
            if placement.at <= self.newest.at:
                held = placement.held_in(self.newest.stored)
                assert self.promised(placement) <= held, (placement, self.newest.stored)


Action = tuple[str, int, int]
SLACK = 4.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One node, its network and its traffic, all drawn from a seed."""

    blocks: int
    skew: float
    holes: frozenset[int] | None
    leaves: int
    script: tuple[Action, ...]
    fate: tuple[str, ...]

    @staticmethod
    def of(seed: int) -> "Scenario":
        dice = random.Random(seed)
        bad = dice.choice([0.0, 0.02, 0.1, 0.3])
        rare = dice.choice([0.0, 0.02, 0.06])
        names = ("turn", "begin", "end", "wait", "clear", "restart")
        weights = (1.0, dice.choice([0.0, 0.3]), 0.3, 0.05, rare, rare)
        size = dice.randint(10, 120)
        busy = dice.randint(1, 8)
        return Scenario(
            blocks=dice.choice([8, 12, 20, 40, 80]),
            skew=dice.choice([0.0, 0.25, 3600.0, -3600.0]),
            holes=dice.choice([None, frozenset(), frozenset({dice.randrange(7)})]),
            leaves=dice.choice([1, 3, 1000, 1000]),
            script=tuple(
                (dice.choices(names, weights)[0], dice.randrange(busy), dice.randrange(4))
                for _ in range(size)
            ),
            fate=tuple(
                dice.choice(("lost", "late", "twice")) if dice.random() < bad else "arrives"
                for _ in range(2 * size)
            ),
        )

    @property
    def engine(self) -> Engine:
        return Engine(blocks=self.blocks, skew=self.skew)

    def without_restarts(self) -> tuple[Action, ...]:
        return tuple(action for action in self.script if action[0] != "restart")


scenarios = st.integers(0, 2**32 - 1).map(Scenario.of)


@dataclass(slots=True)
class Play:
    """Runs a script; each batch meets the next fate, and what is late comes after the two that follow."""

    engine: Engine
    follower: Follower
    fates: Iterator[str]
    confirms: bool = True
    late: deque[tuple[int, Published]] = field(default_factory=deque)
    newest: dict[int, Placement] = field(default_factory=dict)
    count: int = 0
    away: int = 0
    """Batches that nobody gets before there is a connection again."""

    def run(self, script: Sequence[Action], *, is_checked: bool = True) -> None:
        for action in script:
            self.engine.now += 1.0
            self.end_overdue(SLACK - 2)
            self.act(*action)
            if is_checked:
                self.follower.check()

    def act(self, name: str, conversation: int, size: int) -> None:
        engine = self.engine
        match name:
            case "turn" if conversation not in engine.turns:
                self.send(engine.begin(conversation, size or 1, size))
                engine.now += 0.5
                self.end(conversation)
            case "begin":
                self.send(engine.begin(conversation, size or 1, 0))
            case "end":
                self.end(conversation)
            case "wait":
                self.end_overdue(0)
                engine.now += 5.0 * (1 + size)
            case "clear":
                self.send(engine.clear())
            case "restart":
                engine.restart()
                self.late.clear()
                self.follower.sequence.disconnected(engine.now)
                self.away = 2 * size
                if not self.away:
                    self.follower.sequence.connected()

    def end_overdue(self, seconds: float) -> None:
        """No turn is longer than the slack: an answer announces a block every few seconds."""
        for key in [
            key for key, turn in self.engine.turns.items() if self.engine.now - turn.asked_at > seconds
        ]:
            self.end(key)
            self.engine.now += 0.125

    def end(self, conversation: int) -> None:
        turn, last = self.engine.turns.get(conversation), self.newest.get(conversation)
        if turn is None:
            return
        batch, self.newest[conversation] = self.engine.end(conversation)
        self.send(batch)
        is_whole = last and last.chain == turn.chain[: len(last.chain)]
        if self.confirms and last and is_whole and turn.lease.hit_blocks >= len(last.chain):
            self.follower.sequence.retention.confirmed(last.at, turn.asked_at)

    def send(self, batch: Published | None) -> None:
        if batch is None:
            return
        self.count += 1
        if self.away:
            self.away -= 1
            if not self.away:
                self.follower.sequence.connected()
            return
        match next(self.fates, "arrives"):
            case "arrives":
                self.follower.deliver(batch)
            case "twice":
                self.follower.deliver(batch)
                self.late.append((self.count + 3, batch))
            case "late":
                self.late.append((self.count + 2, batch))
        while self.late and self.late[0][0] <= self.count:
            self.follower.deliver(self.late.popleft()[1])


def follower_of(
    engine: Engine, holes: frozenset[int] | None, leaves: int = 1000, *, slack_s: float = SLACK
) -> Follower:
    retention = Retention(RetentionRules(slack_s=slack_s, max_leaves=leaves))
    return Follower(engine, KvSequence(retention), holes)


@settings(max_examples=300, deadline=None)
@given(scenarios)
def test_no_more_is_promised_than_the_node_holds(case: Scenario) -> None:
    """Loss, repetition, delay, flush, restart, holes in replays, forgotten leaves: never above the truth."""
    engine = case.engine
    Play(engine, follower_of(engine, case.holes, case.leaves), iter(case.fate)).run(case.script)


@settings(max_examples=100, deadline=None)
@given(scenarios)
def test_with_every_event_there_is_no_doubt(case: Scenario) -> None:
    """A complete stream leaves nothing suspect once the first batch came."""
    engine = case.engine
    follower = follower_of(engine, None)
    Play(engine, follower, iter(())).run(case.without_restarts())
    expected = "trusted" if follower.newest else "unknown"
    assert expected == follower.sequence.retention.knowledge(engine.now).state


@settings(max_examples=100, deadline=None)
@given(scenarios)
def test_a_whole_replay_mends_every_loss(case: Scenario) -> None:
    """Where the publisher can repeat what was lost, the end is the same as without any loss."""
    engine, twin = case.engine, case.engine
    mended, whole = follower_of(engine, frozenset()), follower_of(twin, None)
    tail: list[Action] = [("turn", 0, 1)] * len(case.script)
    script = [*case.without_restarts(), *tail]
    fate = ["arrives" if one == "late" else one for one in case.fate[: len(case.script)]]
    Play(engine, mended, iter(fate), confirms=False).run(script, is_checked=False)
    Play(twin, whole, iter(()), confirms=False).run(script, is_checked=False)

    counts, knows = mended.sequence.counts, mended.sequence.retention.knowledge(engine.now)
    assert (counts.gaps, "trusted") == (counts.gaps_filled, knows.state)
    assert list(whole.sequence.retention._leaves) == list(mended.sequence.retention._leaves)


def test_the_promise_is_worth_having() -> None:
    """Promising nothing is never better than the truth: here nearly all that is held is promised."""
    engine = Engine(blocks=150, skew=0.0)
    follower = follower_of(engine, frozenset(), slack_s=1.0)
    Play(engine, follower, iter(())).run([("turn", 10 + turn * 7 % 12, 1) for turn in range(200)])
    newest = {placement.chain[2]: placement for placement in engine.placements}.values()
    whole = [one for one in newest if one.held_in(engine.stored) == len(one.chain) * BLOCK]
    promised = [one for one in newest if follower.promised(one)]

    assert 12 == len(newest)
    assert 4 <= len(whole) <= 10
    assert len(whole) - 1 <= len(promised) <= len(whole)


def test_without_any_gate_the_ledger_would_promise_more_than_is_there() -> None:
    """The property above is about something: the ledger alone promises what was evicted long ago."""
    engine = Engine(blocks=12, skew=0.0)
    follower = follower_of(engine, None)
    Play(engine, follower, iter(["lost"])).run([("turn", turn % 6, 1) for turn in range(24)])
    oldest = engine.placements[0]
    retention = Retention()

    assert 0 == follower.promised(oldest)
    age = engine.now - oldest.at
    assert promise(99, age, retention.knowledge(engine.now), OPEN) > oldest.held_in(engine.stored)
