"""Retention: from events to what the ledger may promise, in constant memory."""

import math

import pytest

from gateway.routing.retention import UNKNOWN, Gates, Knowledge, Retention, RetentionRules, odds
from tests.promised import promise

RULES = RetentionRules(slack_s=5.0)
CPU = 2


def followed(at: float = 100.0, rules: RetentionRules = RULES) -> Retention:
    """A node whose engine started at that time, before our eyes."""
    retention = Retention(rules)
    retention.cleared(at)
    return retention


def test_without_events_the_ledger_keeps_its_own_word() -> None:
    """A node that publishes nothing is routed to as before: everything within the assumed retention."""
    assert UNKNOWN == Retention().knowledge(1000.0)
    assert [800, 800, 0] == [promise(800, age, UNKNOWN) for age in (0.0, 1800.0, 1800.1)]
    assert [800, 0] == [promise(800, age, UNKNOWN, Gates(horizon_s=60)) for age in (60.0, 61.0)]
    assert [0.5, 0.25] == [odds(1800.0, UNKNOWN, Gates(unknown=share)) for share in (1.0, 0.5)]


def test_what_was_placed_before_a_clear_is_gone() -> None:
    """A flush or a restart begins an epoch; nothing of the one before is promised."""
    retention = followed(at=100.0)
    retention.cleared(200.0)
    knowledge = retention.knowledge(260.0)

    assert (2, "trusted") == (knowledge.epoch, knowledge.state)
    assert [700, 0, 0] == [promise(700, age, knowledge) for age in (59.0, 60.0, 100.0)]


def test_an_evicted_leaf_takes_all_that_was_used_before_it() -> None:
    """Least recently used goes first, so one eviction tells of every older prefix."""
    retention = followed()
    retention.stored([1, 2, 3], None, 110.0)
    retention.stored([4, 5], None, 120.0)
    retention.stored([6], None, 130.0)
    retention.removed([5], 200.0)
    knowledge = retention.knowledge(200.0)

    assert 75.0 == knowledge.evicted_s
    assert [0, 0, 500] == [promise(500, 200.0 - placed, knowledge) for placed in (112.0, 121.0, 131.0)]


def test_a_block_in_the_middle_tells_nothing() -> None:
    """Of a prefix the last block goes first; another's removal is a copy's, or comes after its leaf's."""
    retention = followed()
    retention.stored([1, 2, 3], None, 110.0)
    retention.removed([1, 2, 99], 200.0)
    assert (math.inf, None) == (retention.knowledge(200.0).evicted_s, retention.knowledge(200.0).horizon_s)


def test_a_prefix_that_grows_has_its_newest_leaf_only() -> None:
    """A dialogue of any length is one entry."""
    retention = followed()
    for turn in range(1, 1000):
        retention.stored([turn], turn - 1 or None, 100.0 + turn)
    assert 1 == len(retention)


def test_a_prefix_used_again_is_young_again() -> None:
    """Reused blocks are announced again by vLLM, when asked to."""
    retention = followed()
    retention.stored([1, 2], None, 110.0)
    retention.stored([3], None, 111.0)
    retention.stored([1, 2], None, 150.0)
    retention.removed([3], 160.0)
    assert 44.0 == retention.knowledge(160.0).evicted_s
    retention.removed([2], 170.0)
    assert 15.0 == retention.knowledge(170.0).evicted_s


def test_what_lies_in_host_memory_too_is_not_evicted() -> None:
    """A prefix is gone when its leaf has left every tier."""
    retention = followed()
    retention.stored([1, 2], None, 110.0)
    retention.stored([2], None, 111.0, CPU)
    retention.stored([77], None, 111.0, CPU)
    retention.removed([2], 150.0)
    assert (math.inf, 1) == (retention.knowledge(150.0).evicted_s, len(retention))
    retention.removed([2], 160.0, CPU)
    assert (45.0, 0) == (retention.knowledge(160.0).evicted_s, len(retention))


def test_the_slack_covers_the_time_from_the_last_full_block_to_the_note() -> None:
    """The ledger notes a placement when its answer ends, after the last block was announced."""
    retention = followed()
    retention.stored([1], None, 110.0)
    retention.removed([1], 200.0)
    knowledge = retention.knowledge(200.0)
    assert [0, 300] == [promise(300, 200.0 - placed, knowledge) for placed in (115.0, 115.1)]


def test_the_horizon_is_a_low_quantile_of_ages() -> None:
    """Nine of ten prefixes lay unused for longer before they went."""
    retention = followed(at=0.0)
    for one in range(100):
        retention.stored([one], None, float(one))
    for one in range(100):
        retention.removed([one], one + (60.0 if one % 5 == 0 else 600.0))
    horizon = retention.knowledge(700.0).horizon_s
    assert horizon is not None
    assert 60 / 1.15 <= horizon <= 60


def test_the_horizon_follows_what_happens_now() -> None:
    """Old evictions fade: after a few half-lives the recent ones decide."""
    retention = followed(at=0.0)
    for one in range(1000):
        retention.stored([one], None, float(one))
        retention.removed([one], one + 30.0)
    early = retention.knowledge(1030.0).horizon_s
    for one in range(1000):
        at = 10_000.0 + one
        retention.stored([one], None, at)
        retention.removed([one], at + 900.0)
    late = retention.knowledge(12_000.0).horizon_s
    assert early is not None
    assert late is not None
    assert (early <= 30, 900 / 1.15 <= late <= 900) == (True, True)


def test_there_is_no_horizon_while_nothing_is_evicted() -> None:
    """None before the first eviction, and again long after the last one."""
    retention = followed(at=0.0)
    retention.stored([1], None, 10.0)
    assert retention.knowledge(50.0).horizon_s is None
    retention.removed([1], 110.0)
    assert retention.knowledge(111.0).horizon_s is not None
    assert retention.knowledge(110.0 + 1e9).horizon_s is None


def test_weights_do_not_overflow_in_years() -> None:
    """The histogram counts its weights anew before floats end."""
    retention = followed(at=0.0)
    for day in range(2000):
        at = day * 86_400.0
        retention.stored([day], None, at)
        retention.removed([day], at + 500.0)
    horizon = retention.knowledge(2000 * 86_400.0 - 86_400.0 + 501.0).horizon_s
    assert horizon is not None
    assert 500 / 1.15 <= horizon <= 500


def test_late_joining_leaves_the_past_to_the_ledger() -> None:
    """Blocks stored before the first event are neither vouched for nor doubted."""
    retention = Retention(RULES)
    retention.joined(100.0)
    knowledge = retention.knowledge(200.0)
    shut = Gates(unknown=0.0)

    assert ("trusted", 95.0) == (knowledge.state, knowledge.vouched_s)
    assert [900, 0] == [promise(900, age, knowledge, shut) for age in (94.0, 96.0)]
    assert 900 == promise(900, 96.0, knowledge)


def test_a_known_horizon_bounds_what_nobody_vouches_for() -> None:
    """The ledger's own word holds no longer than prefixes last on that node."""
    knowledge = Knowledge(horizon_s=300.0)
    assert [50, 0] == [promise(50, age, knowledge) for age in (300.0, 301.0)]


def test_a_doubt_gates_what_was_placed_before_it() -> None:
    """A lost event may have been a flush; what is placed afterwards is known again."""
    retention = followed(at=0.0)
    retention.doubt(100.0)
    knowledge = retention.knowledge(150.0)

    assert "suspect" == knowledge.state
    assert [600, 0] == [promise(600, age, knowledge) for age in (40.0, 60.0)]
    assert odds(60.0, knowledge, Gates(suspect=0.5)) == pytest.approx(0.5, rel=0.01)
    assert "trusted" == retention.knowledge(100.0 + RULES.doubt_fades_s).state


def test_what_is_placed_in_the_slack_after_a_doubt_is_nobodys() -> None:
    """Its last block may be among the lost events, and its eviction would go unseen."""
    retention = followed(at=0.0)
    retention.doubt(100.0)
    assert 0 == promise(600, 46.0, retention.knowledge(150.0), Gates(unknown=0.0))


def test_a_doubt_needs_no_events() -> None:
    """Usage can tell of a restart on a node that publishes nothing."""
    retention = Retention(RULES)
    retention.doubt(100.0)
    knowledge = retention.knowledge(110.0)
    assert ("suspect", 0, 70) == (knowledge.state, promise(70, 11.0, knowledge), promise(70, 9.0, knowledge))


def test_while_the_connection_is_gone_nothing_is_vouched_for() -> None:
    """Not even what was placed since: its eviction would not be heard."""
    retention = followed(at=0.0)
    retention.lost(100.0)
    lost = retention.knowledge(150.0)
    retention.regained()
    shut = Gates(unknown=0.0)

    assert ("suspect", [0, 0]) == (lost.state, [promise(9, age, lost, shut) for age in (10.0, 60.0)])
    assert [9, 9] == [promise(9, age, retention.knowledge(150.0), shut) for age in (10.0, 60.0)]


def test_a_hit_lifts_the_doubts_of_its_time() -> None:
    """What was placed before a lost event and is still found proves that the event was no flush."""
    retention = followed(at=0.0)
    retention.doubt(100.0)
    retention.doubt(110.0)
    retention.confirmed(105.0, asked_at=200.0)
    retention.confirmed(90.0, asked_at=108.0)
    assert "suspect" == retention.knowledge(200.0).state
    retention.confirmed(90.0, asked_at=200.0)
    assert ("trusted", 80) == ((known := retention.knowledge(200.0)).state, promise(80, 120.0, known))


def test_a_hit_outweighs_one_leaf_that_went_early() -> None:
    """An engine that drops a young block for reasons of its own must not cost every older promise."""
    retention = followed(at=0.0)
    retention.stored([1], None, 500.0)
    retention.removed([1], 501.0)
    assert 0 == promise(80, 300.0, retention.knowledge(600.0))
    retention.confirmed(400.0, asked_at=501.0)
    assert 0 == promise(80, 200.0, retention.knowledge(600.0))
    retention.confirmed(400.0, asked_at=600.0)
    assert [80, 0] == [promise(80, age, retention.knowledge(600.0)) for age in (200.0, 200.1)]


def test_a_hit_from_before_a_clear_proves_nothing() -> None:
    """It was computed again by somebody else."""
    retention = followed(at=0.0)
    retention.cleared(300.0)
    retention.doubt(310.0)
    retention.confirmed(200.0, asked_at=400.0)
    assert "suspect" == retention.knowledge(400.0).state


def test_leaves_are_capped_and_the_longest_unused_go_first() -> None:
    """Beyond the cap the node is vouched for less far back, and memory stands."""
    retention = followed(at=0.0, rules=RetentionRules(slack_s=5.0, max_leaves=100))
    for one in range(5000):
        retention.stored([one], None, float(one))
    knowledge = retention.knowledge(5000.0)

    assert (100, 5000.0 - 4899.0 - 5.0) == (len(retention), knowledge.vouched_s)
    assert "trusted" == knowledge.state


@pytest.mark.parametrize("hashes", [[], [b"x" * 32], [-1], [2**64 - 1]])
def test_hashes_are_opaque(hashes: list[int | bytes]) -> None:
    """Signed, unsigned and bytes are keys like others; no hashes, no news."""
    retention = followed()
    retention.stored(hashes, None, 110.0)
    retention.removed(hashes, 120.0)
    assert (bool(hashes), 0) == (retention.knowledge(120.0).evicted_s < math.inf, len(retention))


def test_a_restart_that_counters_told_of_first_is_one_epoch() -> None:
    """Its events begin with it; what they tell afterwards counts as ever."""
    cache = Retention()
    cache.joined(0.0)
    cache.emptied(10.0)
    assert (1, 0.0) == (cache.knowledge(11.0).epoch, cache.knowledge(11.0).vouched_s)
    cache.cleared(12.0)
    assert (1, 3.0) == (cache.knowledge(15.0).epoch, cache.knowledge(15.0).vouched_s)
    cache.cleared(20.0)
    assert 2 == cache.knowledge(21.0).epoch
