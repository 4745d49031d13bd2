"""The order of a publisher's batches: losses, repeats, restarts, replays, and events that cannot be read."""

from collections.abc import Iterable

import msgspec

from bench.stub_node.kv_forms import Cleared, Event, KvForm, Removed, Stored
from gateway.nodes.kv_events import Frame
from gateway.nodes.kv_sequence import JOIN_REPLAY, MAX_REPLAY, Ask, KvSequence
from gateway.routing.retention import Gates, Knowledge, Retention, RetentionRules
from tests.promised import promise

FORM = KvForm()
SHUT = Gates(unknown=0.0)


class Line:
    """A publisher and this side of the line; a second passes with every batch."""

    def __init__(self, *, skew: float = 0.0) -> None:
        self.sequence = KvSequence(Retention(RetentionRules(slack_s=0.0)))
        self.now = 1000.0
        self.skew = skew
        self.sent: list[Frame] = []

    def batch(self, *events: Event, payload: bytes | None = None) -> Frame:
        """The next batch, published now."""
        self.now += 1
        data = FORM.encode(self.now + self.skew, events) if payload is None else payload
        self.sent.append(Frame(seq=len(self.sent), payload=data))
        return self.sent[-1]

    def take(self, frame: Frame) -> Ask | None:
        return self.sequence.take(frame, self.now)

    def fill(self, frames: Iterable[Frame] = ()) -> None:
        for _ in self.sequence.fill(frames, self.now):
            pass

    def restart(self) -> None:
        self.sent = []

    @property
    def knowledge(self) -> Knowledge:
        return self.sequence.retention.knowledge(self.now)

    def promised(self, placed_at: float) -> int:
        return promise(100, self.now - placed_at, self.knowledge, SHUT)


def begun(*, batches: int = 3) -> Line:
    """A line whose publisher was heard from its start."""
    line = Line()
    for block in range(100, 100 + batches):
        assert line.take(line.batch(Stored([block]))) is None
    return line


def test_a_publisher_heard_from_its_start_is_known_whole() -> None:
    """Number 0 is the engine's first word: its cache was empty."""
    line = begun()
    assert ("trusted", 1, 2) == (line.knowledge.state, line.knowledge.epoch, line.sequence.last)
    assert (0, 100) == (line.promised(1000.5), line.promised(1001.5))


def test_a_late_join_asks_for_the_past() -> None:
    """The publisher's replay makes up for what was said before we listened."""
    line = Line()
    frames = [line.batch(Stored([one])) for one in range(5)]
    assert Ask(start=0, stop=4) == line.take(frames[4])
    line.fill(frames)
    assert ("trusted", 1, 100) == (line.knowledge.state, line.knowledge.epoch, line.promised(1001.5))
    assert (4, 5) == (line.sequence.last, line.sequence.counts.batches)


def test_a_late_join_without_a_replay_is_trusted_from_now_on() -> None:
    """What was before is neither known nor doubted."""
    line = Line()
    frames = [line.batch(Stored([one])) for one in range(5)]
    line.take(frames[4])
    line.fill()
    line.now += 10
    assert ("trusted", 0) == (line.knowledge.state, line.knowledge.epoch)
    assert (0, 100) == (line.promised(1004.5), line.promised(1005.5))


def test_a_late_join_looks_back_a_bounded_way() -> None:
    """A publisher that has run for weeks is not asked for weeks."""
    ask = Line().take(Frame(seq=1_000_000, payload=FORM.encode(1.0, [])))
    assert Ask(start=1_000_000 - JOIN_REPLAY, stop=1_000_000) == ask


def test_repeated_events_of_the_past_have_their_own_time() -> None:
    """By this gateway's clock, though the node's is an hour ahead, and never before what came first."""
    line = Line(skew=3600.0)
    frames = [line.batch(Stored([one])) for one in range(9)]
    line.now += 50
    frames.append(line.batch(Removed([3])))
    line.take(frames[-1])
    line.fill(frames)
    assert line.now - 1004.0 == line.knowledge.evicted_s


def test_a_gap_is_filled_from_the_last_batch_on() -> None:
    """The last one booked has to come back as it was: only then are the others its successors."""
    line = begun()
    lost = line.batch(Removed([1]))
    ask = line.take(line.batch(Stored([9])))
    assert Ask(start=2, stop=4) == ask
    line.fill([*line.sent[2:], lost])
    counts = line.sequence.counts
    assert ("trusted", 1, 1, 5) == (line.knowledge.state, counts.gaps, counts.gaps_filled, counts.batches)


def test_a_gap_that_stays_makes_the_node_suspect() -> None:
    """Without the lost batch nobody knows whether it was a flush."""
    line = begun()
    line.batch(Cleared())
    line.take(line.batch(Stored([9])))
    line.fill(line.sent[2:3])
    line.now += 10
    assert ("suspect", 1, 0) == (line.knowledge.state, line.knowledge.epoch, line.promised(1002.0))
    assert 100 == line.promised(line.now - 5)
    assert line.take(line.batch(Stored([10]))) is None


def test_a_hole_in_a_replay_is_a_gap() -> None:
    """What came before the hole cannot vouch for what was in it."""
    line = begun()
    for _ in range(4):
        line.batch(Stored([5]))
    line.take(line.sent[-1])
    line.fill(frame for frame in line.sent if frame.seq != 4)
    assert ("suspect", 6, 5) == (line.knowledge.state, line.sequence.last, line.sequence.counts.batches)


def test_a_gap_longer_than_engines_remember_is_not_asked_for() -> None:
    """They keep 10,000 batches; only the recent ones help with the horizon."""
    line = begun()
    far = Frame(seq=MAX_REPLAY + 3, payload=FORM.encode(line.now, []))
    assert Ask(start=MAX_REPLAY + 3 - JOIN_REPLAY, stop=MAX_REPLAY + 3) == line.take(far)
    line.fill()
    assert "suspect" == line.knowledge.state


def test_a_batch_that_comes_twice_is_booked_once() -> None:
    """Replays overlap with what comes live."""
    line = begun()
    for frame in line.sent:
        assert line.take(frame) is None
    assert (3, 3, 1) == (line.sequence.counts.batches, line.sequence.counts.repeats, line.knowledge.epoch)


def test_a_number_that_goes_back_is_a_restart() -> None:
    """A new epoch: what was placed before is gone."""
    line = begun()
    line.restart()
    assert line.take(line.batch(Stored([1]))) is None
    assert ("trusted", 2, 1) == (line.knowledge.state, line.knowledge.epoch, line.sequence.counts.restarts)
    assert (0, 100) == (line.promised(1003.5), line.promised(line.now + 0.5))


def test_a_restart_hidden_in_a_gap_is_found() -> None:
    """The new publisher has come further than the old one: its batch of that number is another."""
    line = begun()
    line.restart()
    frames = [line.batch(Stored([one])) for one in range(6)]
    assert Ask(start=2, stop=5) == line.take(frames[5])
    line.fill(frames[2:])
    assert (2, 1, 5) == (line.knowledge.epoch, line.sequence.counts.restarts, line.sequence.last)
    assert 0 == line.promised(1003.5)


def test_after_a_disconnection_even_the_next_number_is_proven_first() -> None:
    """A restarted engine may have come to that very number meanwhile."""
    line = begun()
    line.sequence.disconnected(line.now)
    assert ("suspect", 0) == (line.knowledge.state, line.promised(line.now))
    line.sequence.connected()
    following = line.batch(Stored([9]))
    assert Ask(start=2, stop=3) == line.take(following)
    line.fill(line.sent)
    assert ("trusted", 1, 100) == (line.knowledge.state, line.knowledge.epoch, line.promised(1002.0))

    line.sequence.disconnected(line.now)
    line.sequence.connected()
    line.restart()
    frames = [line.batch(Stored([one])) for one in range(5)]
    assert Ask(start=3, stop=4) == line.take(frames[4])
    line.fill(frames)
    assert (2, 0) == (line.knowledge.epoch, line.promised(1002.0))


def test_a_disconnection_without_a_replay_leaves_doubt() -> None:
    """There is no proof that it is still the same engine; what is placed from now on is known."""
    line = begun()
    line.sequence.disconnected(line.now)
    line.sequence.connected()
    line.take(line.batch(Stored([9])))
    line.fill()
    assert ("suspect", 0) == (line.knowledge.state, line.promised(1002.0))
    assert line.take(line.batch(Stored([10]))) is None
    line.now += 5
    assert 100 == line.promised(line.now - 3)


def test_what_still_comes_after_a_disconnection_ends_no_doubt() -> None:
    """It was on its way before; events may be missed until there is a connection."""
    line = begun()
    line.sequence.disconnected(line.now)
    line.take(line.batch(Stored([9])))
    line.fill(line.sent)
    assert ("suspect", 0) == (line.knowledge.state, line.promised(line.now))
    line.sequence.connected()
    line.take(line.batch(Stored([10])))
    line.fill(line.sent)
    assert ("trusted", 100) == (line.knowledge.state, line.promised(1002.0))


def test_a_batch_that_cannot_be_read_is_a_loss() -> None:
    """The feed goes on, and what was placed before is in doubt."""
    line = begun()
    assert line.take(line.batch(payload=b"\xc1 nonsense")) is None
    assert line.take(line.batch(Stored([9]))) is None
    assert ("suspect", 1, 0) == (line.knowledge.state, line.sequence.counts.malformed, line.promised(1002.0))


def test_an_unknown_event_is_counted_and_costs_no_trust() -> None:
    """Its name is kept for the operator, and not more than eight names."""
    line = begun()
    names = [f"Block{letter}" for letter in "ABCDEFGHIJKL"]
    for name in names:
        line.take(
            line.batch(payload=FORM.encode(1.0, []).replace(b"\x90", b"\x91\x81\xa4type\xa6" + name.encode()))
        )
    counts = line.sequence.counts
    assert ("trusted", 12, 8) == (line.knowledge.state, counts.unknown, len(counts.unknown_types))


def grouped(kind: str | None, group: int, *hashes: int) -> dict[str, object]:
    return {
        "type": "BlockStored",
        "block_hashes": list(hashes),
        "group_idx": group,
        "kv_cache_spec_kind": kind,
    }


def test_of_a_hybrid_model_the_full_attention_counts() -> None:
    """Windowed layers drop blocks that are seconds old; that says nothing of the prefix."""
    line = begun()

    def say(*events: dict[str, object]) -> None:
        line.take(line.batch(payload=msgspec.msgpack.encode([line.now, events, 0])))

    say(grouped("sliding_window", 1, 7), grouped("full_attention", 0, 7))
    say({"type": "BlockRemoved", "block_hashes": [7], "group_idx": 1})
    assert line.knowledge.horizon_s is None
    say({"type": "BlockRemoved", "block_hashes": [7], "group_idx": 0})
    assert line.knowledge.horizon_s is not None


def test_blocks_in_host_memory_are_a_tier_of_their_own() -> None:
    """SGLang says CPU_PINNED, vLLM CPU; a copy there keeps a prefix that left the accelerator."""
    line = begun()
    line.take(line.batch(Stored([7]), Stored([7], medium="CPU_PINNED"), Removed([7])))
    assert line.knowledge.horizon_s is None
    line.take(line.batch(Removed([7], medium="CPU")))
    assert line.knowledge.horizon_s is not None
