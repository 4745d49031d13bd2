"""When it is too much: a conversation's own count, a tenant's total, and what a process knows of it."""

import asyncio
from collections.abc import Collection, Mapping

import pytest

from history.allowance import Allowance
from history.book import Book
from history.conversation import Reply, Stored, turn_size
from history.dialogue import Dialogues, Replay
from history.editing import Editor
from history.errors import ConversationFull, QuotaExceeded, StoreUnavailable
from history.incoming import ANEW, read_incoming
from history.lease_keeper import LeaseKeeper
from history.limits import LimitRule, check_growth, check_tenant
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from history.ports import Begun, Claim
from history.siblings import select
from tests.desk import KEY, RULES, Desk


@pytest.mark.parametrize(
    ("rule", "before", "after", "refused"),
    [
        (LimitRule(), Stored(10**9, 10**12), Stored(10**9 + 1, 10**12 + 1), False),
        (LimitRule(conversation_turns=5), Stored(4, 9), Stored(5, 10), False),
        (LimitRule(conversation_turns=5), Stored(5, 9), Stored(6, 10), True),
        (LimitRule(conversation_turns=5), Stored(2, 9), Stored(6, 10), True),
        (LimitRule(conversation_turns=5), Stored(7, 9), Stored(7, 99), False),
        (LimitRule(conversation_turns=5), Stored(9, 9), Stored(8, 8), False),
        (LimitRule(conversation_bytes=50), Stored(1, 49), Stored(2, 5000), False),
        (LimitRule(conversation_bytes=50), Stored(1, 50), Stored(2, 51), True),
        (LimitRule(conversation_bytes=50), Stored(1, 60), Stored(1, 60), False),
        (LimitRule(conversation_bytes=50), Stored(1, 60), Stored(1, 55), False),
    ],
)
def test_a_conversation_must_not_grow_beyond_its_limit(
    rule: LimitRule, before: Stored, after: Stored, *, refused: bool
) -> None:
    """Turns to the last one; bytes by the turn that goes over. What does not grow is never refused."""
    if not refused:
        check_growth(before, after, rule)
        return
    with pytest.raises(ConversationFull, match="a new conversation"):
        check_growth(before, after, rule)


def test_a_tenant_is_told_what_is_too_much_and_what_to_do() -> None:
    """By turns or by bytes; 0 is no limit."""
    check_tenant(Stored(10**9, 10**12), LimitRule())
    check_tenant(Stored(4, 49), LimitRule(tenant_turns=5, tenant_bytes=50))
    with pytest.raises(QuotaExceeded, match=r"5 turns .* delete conversations.*history.limits.tenant_turns"):
        check_tenant(Stored(5, 0), LimitRule(tenant_turns=5))
    with pytest.raises(QuotaExceeded, match=r"history.limits.tenant_bytes"):
        check_tenant(Stored(0, 51), LimitRule(tenant_turns=5, tenant_bytes=50))


def test_what_could_not_be_told_is_told_the_next_time() -> None:
    """And once."""
    book = Book()
    book.note("a", 2, 20)
    book.note("b", -1, -5)
    book.note("c", 0, 0)
    taken = book.take()
    book.note("a", 1, 10)
    book.put_back(taken)

    assert {"a": Stored(2, 20), "b": Stored(-1, -5)} == taken
    assert {"a": Stored(3, 30), "b": Stored(-1, -5)} == book.take()
    assert {} == book.take()


def limited(rule: LimitRule) -> tuple[Desk, Allowance]:
    """A desk under limits."""
    desk = Desk(store=MemoryStore(limits=rule))
    allowance = Allowance(desk.store, rule)
    keeper = LeaseKeeper(desk.store, clock=lambda: 0.0)
    desk.dialogues = Dialogues(desk.store, keeper, RULES, lambda: 1.0, allowance=allowance)
    desk.editor = Editor(desk.dialogues, desk.store, RULES, lambda: 1.0, desk.name)
    return desk, allowance


async def test_a_tenant_that_is_over_its_limit_takes_no_turn_and_no_edit() -> None:
    """From the moment this process knows it; what is stored can still be chosen from, and be erased."""
    desk, allowance = limited(LimitRule(tenant_turns=3))
    await desk.talk("a", "b")
    await allowance.settle()
    await desk.editor.append(KEY, read_incoming(b'[{"role":"user","content":"c"}]').messages)
    await desk.editor.append(KEY, read_incoming(b'[{"role":"assistant","content":"C"}]').messages)
    await allowance.settle()
    with pytest.raises(QuotaExceeded):
        await desk.talk("d")
    with pytest.raises(QuotaExceeded):
        await desk.editor.append(KEY, read_incoming(b'[{"role":"user","content":"d"}]').messages)
    await select(desk.editor, desk.store, KEY, index=2, number=1)
    await desk.store.erase(KEY)
    await allowance.settle()

    await desk.talk("e")
    assert [["e", "e!"]] == await desk.said()


async def test_what_is_stored_is_answered_again_though_the_tenant_is_over_its_limit() -> None:
    """The turn that filled it up is there; its client may not have got the answer."""
    desk, allowance = limited(LimitRule(tenant_turns=1))
    incoming = read_incoming(b'[{"role":"user","content":"a"}]')

    def ask(owner: str, key: str) -> Ask:
        return Ask(owner=owner, on_stop=lambda _: None, on_busy="queue", idempotency_key=key)

    turn = await desk.dialogues.open(KEY, incoming, ask("first", "once"))
    assert isinstance(turn, OpenTurn)
    await turn.commit(Answer(message=answer({"content": "A"}), reply=Reply()))
    await allowance.settle()

    again = await desk.dialogues.open(KEY, incoming, ask("second", "once"))
    assert isinstance(again, Replay)
    with pytest.raises(QuotaExceeded):
        await desk.dialogues.open(KEY, incoming, ask("third", "another"))
    begun = await desk.store.begin(KEY, Claim(owner="fourth", lease_ms=1000, queue_limit=0))
    assert isinstance(begun, Begun), "the lease was not given back"


async def test_a_full_conversation_is_refused_before_a_model_is_asked() -> None:
    """When it is opened; what answers a tool's call belongs to a turn that has begun."""
    desk, _ = limited(LimitRule(conversation_turns=2))
    await desk.talk("a", "b")
    with pytest.raises(ConversationFull):
        await desk.talk("c")
    with pytest.raises(ConversationFull):
        await desk.talk("", incoming=ANEW)

    assert [["a", "a!"], ["b", "b!"]] == await desk.said()
    assert Stored(2, sum(map(turn_size, await desk.store.read(KEY, 0, 9)))) == (await desk.load()).stored


async def test_what_a_store_does_not_say_is_asked_for_again() -> None:
    """A store that is away loses nothing of the accounts, and ends no task."""

    class Away(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.answered = 0, asyncio.Event()

        async def usage(self, tenants: Collection[str]) -> Mapping[str, Stored]:
            self.asked += 1
            if self.asked < 3:
                raise StoreUnavailable("away")
            self.answered.set()
            return {"t": Stored(7, 70)} if "t" in tenants else {}

    store, faults = Away(), list[Exception]()
    allowance = Allowance(store, LimitRule(tenant_turns=7))
    allowance.check("t")
    task = asyncio.create_task(allowance.run(faults.append, every_s=0.01))
    await asyncio.wait_for(store.answered.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert [StoreUnavailable] * 2 == [type(fault) for fault in faults]
    with pytest.raises(QuotaExceeded, match="7 turns"):
        allowance.check("t")
