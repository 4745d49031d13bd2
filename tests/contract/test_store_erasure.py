"""What every conversation store promises tenants and users: nothing crosses over, what is erased is gone."""

import pytest

from history.conversation import Conversation, ConversationKey
from history.errors import ConversationErased, ConversationNotFound, InvalidMessages, LeaseLost
from history.ports import Change
from tests.contract.store_stage import Stage, begun, claim, say, turn

WEIRD_IDS = (
    "{",
    "}",
    "{}",
    "a}b",
    "}{:",
    ":",
    "a:b",
    "*",
    "?",
    "%",
    "%7B",
    "%7D",
    "日本語",
    "🦆",
    "\ud800",
    " ",
    "\n\0",
    "x" * 256,
)


async def test_erased_conversation_refuses_a_late_commit(stage: Stage) -> None:
    """What was being written when it was erased is not written, also when others have begun anew."""
    await say(stage, stage.key(), "a")
    held = await begun(stage, stage.key(), "late")
    await stage.store.erase(stage.key())
    change = Change(keep=1, append=(turn("late"),), at=1.0)
    with pytest.raises(ConversationErased):
        await stage.store.commit(stage.key(), held.lease, change)
    fresh = await begun(stage, stage.key(), "fresh")
    with pytest.raises(LeaseLost):
        await stage.store.commit(stage.key(), held.lease, change)

    assert fresh.is_new
    assert Conversation() == fresh.conversation
    assert await stage.store.read(stage.key(), 0, 9) == ()


async def test_erase_takes_everything(stage: Stage) -> None:
    """Turns, digests, branches, queue and the place in the user's index are gone; the rest stays."""
    held = await begun(stage, stage.key())
    change = Change(keep=0, append=(turn("a"), turn("b")), at=1.0, user="u")
    await stage.store.register(stage.tenant, "u", stage.key())
    await stage.store.register(stage.tenant, "u", stage.key("other"))
    await stage.store.commit(stage.key(), held.lease, change)
    held = await begun(stage, stage.key())
    await stage.store.commit(stage.key(), held.lease, Change(keep=1, append=(), at=1.0, save_branch=True))
    await stage.store.erase(stage.key())
    await stage.store.erase(stage.key())
    await stage.store.erase(stage.key("never was"))

    assert await stage.store.load(stage.key()) is None
    assert await stage.store.digests(stage.key()) == ()
    assert await stage.store.conversations_of(stage.tenant, "u") == ("other",)
    with pytest.raises(ConversationNotFound):
        await stage.store.branch(stage.key(), 1)


async def test_what_is_not_there_is_taken_out_of_the_index(stage: Stage) -> None:
    """Nobody finds there what was erased before it was written; what is there, or is being begun, stays."""
    await say(stage, stage.key("there"), "a")
    await begun(stage, stage.key("begun"))
    for conversation_id in ("there", "begun", "gone"):
        await stage.store.register(stage.tenant, "u", stage.key(conversation_id))
        await stage.store.unregister(stage.tenant, "u", stage.key(conversation_id))
    await stage.store.unregister(stage.tenant, "u", stage.key("never was"))
    await stage.store.unregister(stage.tenant, "nobody", stage.key("there"))

    assert await stage.store.conversations_of(stage.tenant, "u") == ("there", "begun")
    assert await stage.store.conversations_of(stage.tenant, "nobody") == ()


async def test_erased_user_leaves_nothing_and_gets_nothing_new(stage: Stage) -> None:
    """Every conversation goes, also the one whose first turn is being written, and none is added."""
    for conversation_id in ("b", "a", "{c}"):
        await stage.store.register(stage.tenant, "u", stage.key(conversation_id))
        await say(stage, stage.key(conversation_id), "hello")
    await stage.store.register(stage.tenant, "u", stage.key("b"))
    held = await begun(stage, stage.key("first turn"), "w")
    await stage.store.register(stage.tenant, "u", stage.key("first turn"))
    await say(stage, stage.key("of another user"), "hello")
    listed = await stage.store.conversations_of(stage.tenant, "u")

    assert listed == ("b", "a", "{c}", "first turn")
    assert await stage.store.erase_user(stage.tenant, "u") == 4
    assert [await stage.store.load(stage.key(conversation_id)) for conversation_id in listed] == [None] * 4
    assert await stage.store.load(stage.key("of another user")) is not None
    assert await stage.store.conversations_of(stage.tenant, "u") == ()
    with pytest.raises(ConversationErased):
        await stage.store.commit(stage.key("first turn"), held.lease, Change(keep=0, append=(), at=1.0))
    with pytest.raises(ConversationErased):
        await stage.store.register(stage.tenant, "u", stage.key("new"))
    await stage.store.register(stage.tenant, "somebody else", stage.key("new"))


async def test_tenants_never_cross(stage: Stage) -> None:
    """The same id, or one made to look like another tenant's key, opens nobody else's dialogue."""
    other = ConversationKey(f"{stage.tenant}.b", "c")
    await say(stage, stage.key("c"), "mine")
    await say(stage, other, "theirs")
    await stage.store.register(stage.tenant, "u", stage.key("c"))
    forged = [
        stage.key(f"x}}:{{{other.tenant}:c"),
        stage.key(f"{other.tenant}:c"),
        stage.key(f"c}}:turns{{{other.tenant}"),
    ]

    assert (turn("mine"),) == await stage.store.read(stage.key("c"), 0, 9)
    assert (turn("theirs"),) == await stage.store.read(other, 0, 9)
    assert [await stage.store.load(key) for key in forged] == [None] * 3
    assert await stage.store.conversations_of(other.tenant, "u") == ()
    assert await stage.store.erase_user(other.tenant, "u") == 0
    assert await stage.store.load(stage.key("c")) is not None


async def test_weird_ids_are_ids(stage: Stage) -> None:
    """Braces, colons, wildcards, escapes and half a surrogate pair each name a conversation of their own."""
    for conversation_id in WEIRD_IDS:
        await say(stage, stage.key(conversation_id), str(WEIRD_IDS.index(conversation_id)))
        await stage.store.register(stage.tenant, "{u}:*", stage.key(conversation_id))
    await stage.store.erase(stage.key("*"))

    for number, conversation_id in enumerate(WEIRD_IDS):
        expected = () if conversation_id == "*" else (turn(str(number)),)
        assert expected == await stage.store.read(stage.key(conversation_id), 0, 9)
    assert await stage.store.conversations_of(stage.tenant, "{u}:*") == WEIRD_IDS


@pytest.mark.parametrize("tenant", ["", "a:b", "a}", "{", "a b", "ä", "a\n", "x" * 129])
async def test_tenant_that_could_leave_its_keys_is_refused(stage: Stage, tenant: str) -> None:
    """A tenant is a plain name."""
    with pytest.raises(ValueError, match="tenant"):
        await stage.store.begin(ConversationKey(tenant, "c"), claim("a"))
    with pytest.raises(ValueError, match="tenant"):
        await stage.store.conversations_of(tenant, "u")


async def test_unusable_ids_are_the_callers_fault(stage: Stage) -> None:
    """An empty or an endless id is named as what is wrong with the request."""
    for conversation_id in ("", "x" * 257):
        with pytest.raises(InvalidMessages) as caught:
            await stage.store.begin(stage.key(conversation_id), claim("a"))
        assert caught.value.param == "conversation"
    with pytest.raises(InvalidMessages) as caught:
        await stage.store.register(stage.tenant, "x" * 257, stage.key())
    assert caught.value.param == "user"
