"""What is counted of a conversation and of a tenant, and when a commit is refused for it."""

import pytest

from history.conversation import ConversationKey, Stored, turn_size
from history.errors import ConversationFull
from history.limits import LimitRule
from history.ports import Change, ConversationStore
from tests.contract.store_stage import Stage, begun, claim, say, turn


def size(*texts: str) -> int:
    """The bytes of these turns."""
    return sum(turn_size(turn(text)) for text in texts)


async def stored(stage: Stage, key: ConversationKey) -> Stored:
    conversation = await stage.store.load(key)
    assert conversation is not None
    return conversation.stored


async def write(stage: Stage, change: Change) -> Stored:
    held = await begun(stage, stage.key(), f"writer of {change}")
    return (await stage.store.commit(stage.key(), held.lease, change)).stored


async def test_every_turn_that_is_kept_is_counted(stage: Stage) -> None:
    """Replaced ones as well, and those that came as branches; what is dropped for good is not."""
    await say(stage, stage.key(), *"abc")
    assert Stored(3, size(*"abc")) == await stored(stage, stage.key())

    many = tuple(turn(str(number)) for number in range(20))
    edited = Change(keep=1, append=many, at=1.0, save_branch=True, branches=((0, many[:2]), (0, many)))
    twice = size(*map(str, range(20))) * 2 + size("0", "1") + size(*"abc")
    assert Stored(3 + 20 + 2 + 20, twice) == await write(stage, edited)

    assert await stage.store.branches_at(stage.key(), 1) == (1,)
    swapped = Change(keep=1, append=(turn("b"), turn("c")), at=1.0, save_branch=True, into_branch=1)
    assert Stored(45, twice) == await write(stage, swapped)

    dropped = Change(keep=0, append=(turn("z"),), at=1.0)
    assert Stored(45 - 3 + 1, twice - size(*"abc") + size("z")) == await write(stage, dropped)
    assert (await stored(stage, stage.key())) == (await begun(stage, stage.key())).conversation.stored


async def test_a_commit_that_is_sent_twice_counts_once(stage: Stage) -> None:
    """As it writes once."""
    held = await begun(stage, stage.key())
    change = Change(keep=0, append=(turn("a"),), at=1.0)
    await stage.store.commit(stage.key(), held.lease, change)
    await stage.store.commit(stage.key(), held.lease, change)

    assert Stored(1, size("a")) == await stored(stage, stage.key())
    assert {stage.tenant: Stored(1, size("a"))} == await stage.store.usage([stage.tenant])


async def limited(stage: Stage, rule: LimitRule, *texts: str) -> ConversationStore:
    """A store with limits, and a conversation of these turns in it."""
    store = stage.limited(rule)
    for number, text in enumerate(texts):
        await commit(store, stage.key(), f"w{number}", Change(keep=number, append=(turn(text),), at=1.0))
    return store


async def commit(store: ConversationStore, key: ConversationKey, owner: str, change: Change) -> None:
    held = await store.begin(key, claim(owner))
    await store.commit(key, held.lease, change)  # type: ignore[union-attr]  # nobody else writes


async def test_a_full_conversation_takes_no_more_turns(stage: Stage) -> None:
    """Nothing is written then; an older answer can still be selected, and one that gets shorter may."""
    store = await limited(stage, LimitRule(conversation_turns=3), *"ab")
    await commit(store, stage.key(), "x", Change(keep=1, append=(turn("B"),), at=1.0, save_branch=True))
    for change in (
        Change(keep=2, append=(turn("c"),), at=1.0),
        Change(keep=0, append=(turn("A"),), at=1.0, save_branch=True),
        Change(keep=2, append=(), at=1.0, branches=((0, (turn("A"),)),)),
    ):
        with pytest.raises(ConversationFull, match=r"has 3 turns with \d+ bytes .* may have 3 turns"):
            await commit(store, stage.key(), f"w{change}", change)
        await store.leave(stage.key(), f"w{change}")
    back = Change(keep=1, append=(turn("b"),), at=1.0, save_branch=True, into_branch=1)
    await commit(store, stage.key(), "y", back)

    assert (turn("a"), turn("b")) == await store.read(stage.key(), 0, 9)
    await commit(store, stage.key(), "z", Change(keep=1, append=(), at=1.0))
    await commit(store, stage.key(), "z2", Change(keep=1, append=(turn("c"),), at=1.0))


async def test_a_conversation_with_too_many_bytes_takes_no_more(stage: Stage) -> None:
    """The turn that goes over the limit is kept: its answer was given."""
    store = await limited(stage, LimitRule(conversation_bytes=size("a") + 1), *"ab")
    with pytest.raises(ConversationFull, match="bytes"):
        await commit(store, stage.key(), "x", Change(keep=2, append=(turn("c"),), at=1.0))

    loaded = await store.load(stage.key())
    assert loaded is not None
    assert Stored(2, size(*"ab")) == loaded.stored


async def test_a_tenant_s_total_follows_what_is_written_and_erased(stage: Stage) -> None:
    """Across its conversations and users, and no other tenant's."""
    other = ConversationKey(f"{stage.tenant}.b", "c")
    await say(stage, stage.key("1"), *"ab")
    await say(stage, stage.key("2"), "c")
    await say(stage, other, "d")
    first = await stage.store.usage([stage.tenant, "nobody"])
    await stage.store.erase(stage.key("1"))
    held = await begun(stage, stage.key("3"), "w")
    await stage.store.register(stage.tenant, "u", stage.key("3"))
    change = Change(keep=0, append=(turn("e"),), at=1.0, user="u")
    await stage.store.commit(stage.key("3"), held.lease, change)
    second = await stage.store.usage([stage.tenant])
    await stage.store.erase_user(stage.tenant, "u")
    third = await stage.store.usage([stage.tenant, other.tenant])

    assert Stored(3, size(*"abc")) == first[stage.tenant]
    assert Stored() == first["nobody"]
    assert Stored(2, size(*"ce")) == second[stage.tenant]
    assert Stored(1, size("c")) == third[stage.tenant]
    assert Stored(1, size("d")) == third[other.tenant]
    assert third == await stage.store.usage([stage.tenant, other.tenant])


async def test_a_census_finds_every_conversation(stage: Stage) -> None:
    """Whatever its id; but no lease of a turn that was never written."""
    ids = ["a", "{b}", "%7Bb%7D", "c:d}:meta", "\ud800", "\n*?", "x" * 256]
    for conversation_id in ids:
        await say(stage, stage.key(conversation_id), "hello")
    await begun(stage, stage.key("never written"))
    found = [one async for some in stage.store.census() for one in some if one.key.tenant == stage.tenant]

    assert {(stage.key(one), Stored(1, size("hello"))) for one in ids} == {
        (one.key, one.stored) for one in found
    }


async def test_what_is_due_is_done_by_one(stage: Stage) -> None:
    """The next one when its time is over; another thing at any time."""
    what = f"sweep of {stage.tenant}"

    assert await stage.store.is_first(what, within_ms=60_000)
    assert not await stage.store.is_first(what, within_ms=60_000)
    assert await stage.store.is_first(f"{what} 2", within_ms=60_000)
