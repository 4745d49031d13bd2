"""What every conversation store promises its writers: one at a time, in order, and no word of a stale one."""

import pytest

from history.errors import LeaseLost
from history.ports import Begun, Busy, Change, Missing
from history.store_rules import TICKET_MS
from tests.contract.store_stage import Stage, begun, claim, say, turn


async def test_must_exist_is_missing_until_the_first_commit(stage: Stage) -> None:
    """Neither an unused id nor one whose first turn is being written exists."""
    strict = claim("b", must_exist=True)
    assert Missing() == await stage.store.begin(stage.key(), strict)
    held = await begun(stage, stage.key(), "a")
    assert Missing() == await stage.store.begin(stage.key(), strict)
    await stage.store.commit(stage.key(), held.lease, Change(keep=0, append=(), at=1.0))

    assert isinstance(await stage.store.begin(stage.key(), strict), Begun)


async def test_waiting_writers_are_served_in_order_of_arrival(stage: Stage) -> None:
    """Whoever came first gets the lease, however often the others ask."""
    held = await begun(stage, stage.key(), "holder")
    for position, owner in enumerate(("first", "second", "third")):
        answer = await stage.store.begin(stage.key(), claim(owner))
        assert isinstance(answer, Busy)
        assert position == answer.position
        assert 9_000 < answer.holder_expires_ms <= 10_000
    lease, served = held.lease, []
    while len(served) < 3:
        await stage.store.release(stage.key(), lease)
        for owner in ("third", "second", "first"):
            answer = await stage.store.begin(stage.key(), claim(owner)) if owner not in served else None
            if isinstance(answer, Begun):
                served.append(owner)
                lease = answer.lease
                break

    assert served == ["first", "second", "third"]


async def test_newcomer_does_not_overtake_the_queue(stage: Stage) -> None:
    """A free lease belongs to the head of the queue even if somebody else asks sooner."""
    held = await begun(stage, stage.key(), "holder")
    await stage.store.begin(stage.key(), claim("waiting"))
    await stage.store.release(stage.key(), held.lease)

    assert Busy(position=1, holder_expires_ms=0) == await stage.store.begin(stage.key(), claim("late"))
    assert isinstance(await stage.store.begin(stage.key(), claim("waiting")), Begun)


async def test_queue_is_bounded(stage: Stage) -> None:
    """The one ticket too many is refused without a place; those inside keep theirs."""
    await begun(stage, stage.key(), "holder")
    await stage.store.begin(stage.key(), claim("one", queue_limit=1))
    refused = await stage.store.begin(stage.key(), claim("two", queue_limit=1))
    at_once = await stage.store.begin(stage.key(), claim("three", queue_limit=0))
    kept = await stage.store.begin(stage.key(), claim("one", queue_limit=1))

    assert [answer.position for answer in (refused, at_once, kept) if isinstance(answer, Busy)] == [-1, -1, 0]


async def test_unseen_ticket_expires(stage: Stage) -> None:
    """A gateway that died in the queue holds nobody up; one that asks again keeps its place."""
    held = await begun(stage, stage.key(), "holder")
    await stage.store.begin(stage.key(), claim("dead"))
    await stage.store.begin(stage.key(), claim("alive"))
    await stage.pass_ms(stage.key(), TICKET_MS - 1_000)
    still_second = await stage.store.begin(stage.key(), claim("alive"))
    await stage.pass_ms(stage.key(), 1_500)
    now_first = await stage.store.begin(stage.key(), claim("alive"))
    await stage.store.release(stage.key(), held.lease)

    assert isinstance(still_second, Busy)
    assert isinstance(now_first, Busy)
    assert (still_second.position, now_first.position) == (1, 0)
    assert isinstance(await stage.store.begin(stage.key(), claim("alive")), Begun)


async def test_leaving_gives_up_the_ticket(stage: Stage) -> None:
    """Who hangs up while waiting lets the next one move up."""
    held = await begun(stage, stage.key(), "holder")
    await stage.store.begin(stage.key(), claim("gone"))
    await stage.store.begin(stage.key(), claim("next"))
    await stage.store.leave(stage.key(), "gone")
    await stage.store.leave(stage.key(), "never came")
    await stage.store.release(stage.key(), held.lease)

    assert isinstance(await stage.store.begin(stage.key(), claim("next")), Begun)


async def test_leaving_gives_up_a_lease_just_granted(stage: Stage) -> None:
    """Who hangs up while the grant is on its way does not block the conversation."""
    await begun(stage, stage.key(), "gone")
    await stage.store.leave(stage.key(), "gone")

    assert isinstance(await stage.store.begin(stage.key(), claim("next")), Begun)


async def test_begin_again_by_the_holder_returns_the_same_lease(stage: Stage) -> None:
    """An answer lost on the way can be asked for again."""
    first = await begun(stage, stage.key(), "a")

    assert first == await stage.store.begin(stage.key(), claim("a"))


async def test_expired_lease_goes_to_the_next_in_line(stage: Stage) -> None:
    """A holder that died frees the conversation when its lease ends, with a higher fence."""
    held = await begun(stage, stage.key(), "died")
    await stage.pass_ms(stage.key(), 9_000)
    await stage.store.begin(stage.key(), claim("next"))
    await stage.pass_ms(stage.key(), 1_500)
    late = await stage.store.begin(stage.key(), claim("late"))
    answer = await stage.store.begin(stage.key(), claim("next"))

    assert Busy(position=1, holder_expires_ms=0) == late
    assert isinstance(answer, Begun)
    assert answer.lease.fence > held.lease.fence


async def test_stale_holder_cannot_commit(stage: Stage) -> None:
    """Once another writer took over, the old one's words are not written, whatever it still believes."""
    stale = await begun(stage, stage.key(), "stale")
    await stage.pass_ms(stage.key(), 10_500)
    fresh = await begun(stage, stage.key(), "fresh")
    with pytest.raises(LeaseLost):
        await stage.store.commit(stage.key(), stale.lease, Change(keep=0, append=(turn("old"),), at=1.0))
    await stage.store.release(stage.key(), stale.lease)
    renewal = await stage.store.renew(stage.key(), stale.lease)
    await stage.store.commit(stage.key(), fresh.lease, Change(keep=0, append=(turn("new"),), at=1.0))
    with pytest.raises(LeaseLost):
        await stage.store.commit(stage.key(), stale.lease, Change(keep=0, append=(turn("old"),), at=1.0))

    assert not renewal.held
    assert (turn("new"),) == await stage.store.read(stage.key(), 0, 9)


async def test_lease_that_only_expired_still_commits(stage: Stage) -> None:
    """An answer that took too long is kept as long as nobody came after it."""
    held = await begun(stage, stage.key())
    await stage.pass_ms(stage.key(), 60_000)
    await stage.store.commit(stage.key(), held.lease, Change(keep=0, append=(turn("slow"),), at=1.0))

    assert (turn("slow"),) == await stage.store.read(stage.key(), 0, 9)


async def test_renewed_lease_lasts_from_now(stage: Stage) -> None:
    """A heartbeat keeps the others waiting."""
    held = await begun(stage, stage.key())
    await stage.pass_ms(stage.key(), 8_000)
    renewal = await stage.store.renew(stage.key(), held.lease)
    await stage.pass_ms(stage.key(), 8_000)
    answer = await stage.store.begin(stage.key(), claim("other"))

    assert renewal.held
    assert not renewal.interrupted
    assert isinstance(answer, Busy)


async def test_interrupt_reaches_the_holder_and_not_its_successor(stage: Stage) -> None:
    """Who asks for a restart is heard by the answer being written, once."""
    held = await begun(stage, stage.key(), "talking")
    await stage.store.begin(stage.key(), claim("refused", queue_limit=0, interrupt=True))
    before = await stage.store.renew(stage.key(), held.lease)
    await stage.store.begin(stage.key(), claim("impatient", interrupt=True))
    after = await stage.store.renew(stage.key(), held.lease)
    await stage.store.release(stage.key(), held.lease)
    successor = await begun(stage, stage.key(), "impatient", interrupt=True)
    own = await stage.store.renew(stage.key(), successor.lease)

    assert [(renewal.held, renewal.interrupted) for renewal in (before, after, own)] == [
        (True, False),
        (True, True),
        (True, False),
    ]


async def test_repeated_commit_changes_nothing(stage: Stage) -> None:
    """A commit whose answer got lost may be sent again, even after somebody else went on."""
    held = await begun(stage, stage.key(), "a")
    change = Change(keep=0, append=(turn("a"),), at=1.0, new_epoch=True)
    first = await stage.store.commit(stage.key(), held.lease, change)
    second = await stage.store.commit(stage.key(), held.lease, change)
    await say(stage, stage.key(), "b", "c")
    late = await stage.store.commit(stage.key(), held.lease, change)

    assert first == second
    assert late.turn_count == 3
    assert tuple(turn(text) for text in "abc") == await stage.store.read(stage.key(), 0, 9)


async def test_commit_frees_the_lease(stage: Stage) -> None:
    """The next writer need not wait for the lease to run out."""
    await say(stage, stage.key(), "a")

    assert isinstance(await stage.store.begin(stage.key(), claim("b")), Begun)


async def test_release_writes_nothing(stage: Stage) -> None:
    """An answer that is dropped leaves no trace but a higher fence."""
    held = await begun(stage, stage.key(), "a")
    await stage.store.release(stage.key(), held.lease)
    with pytest.raises(LeaseLost):
        await stage.store.commit(stage.key(), held.lease, Change(keep=0, append=(turn("a"),), at=1.0))
    again = await begun(stage, stage.key(), "a")

    assert again.is_new
    assert again.lease.fence > held.lease.fence


async def test_claim_without_an_owner_is_refused(stage: Stage) -> None:
    """An empty owner would be taken for nobody."""
    with pytest.raises(ValueError, match="owner"):
        await stage.store.begin(stage.key(), claim(""))


async def test_same_owner_with_an_old_fence_is_a_stale_writer(stage: Stage) -> None:
    """It is the fence that counts: a name used again does not revive the lease that it had before."""
    old = await begun(stage, stage.key(), "a")
    await stage.store.release(stage.key(), old.lease)
    new = await begun(stage, stage.key(), "a")
    renewal = await stage.store.renew(stage.key(), old.lease)
    await stage.store.release(stage.key(), old.lease)
    with pytest.raises(LeaseLost):
        await stage.store.commit(stage.key(), old.lease, Change(keep=0, append=(turn("old"),), at=1.0))

    assert not renewal.held
    assert (await stage.store.renew(stage.key(), new.lease)).held
