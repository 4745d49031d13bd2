"""A second message while an answer is being written: it waits, is refused, or takes the first one's place."""

import asyncio
import itertools
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from history.conversation import Conversation, ConversationKey, Lease, Reply
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.message import answer
from history.open_turn import Answer as TurnAnswer
from history.open_turn import Ask, OpenTurn
from history.ports import Change
from history.rules import DialogueRules
from tests.gateway_process import Gateway, Stub, running_gateway, until
from tests.raw_http import Answer, RawClient, chat, request

QUEUE_LIMIT = 12
LONG = {"max_tokens": 60, "stream": True}
STUB = {"decode_rate": 100.0, "answer_tokens": 3}


@pytest.fixture(scope="module")
def gateway(stub: Stub, store_url: str) -> Iterator[Gateway]:
    """A gateway over each store, with a queue that can be filled."""
    limit = ("--set", f"history.rules.queue_limit={QUEUE_LIMIT}")
    with running_gateway(f"vllm={stub.url}", options=("--redis", store_url, *limit)) as process:
        yield process


@pytest.fixture
def conversation() -> str:
    """An id of this test alone."""
    return uuid.uuid4().hex


class Asking:
    """A request under way on a connection of its own."""

    def __init__(self, gateway: Gateway, conversation: str, text: str, **fields: object) -> None:
        self._client = RawClient(gateway.port)
        self._client.send(request(chat(text, **fields), headers={"x-session-id": conversation}))

    def begun(self) -> None:
        """Wait until the answer has begun."""
        self._seen = self._client.read_some(b'"content":"') + self._client.read_some(b'"')

    def answer(self) -> Answer:
        """Wait until the answer is there."""
        with self._client:
            return self._client.answer_after(getattr(self, "_seen", b""))


def users(stub: Stub) -> list[str]:
    """What users said, in the prompt that the node got last."""
    return [message["content"] for message in stub.prompts()[-1] if message["role"] == "user"]


def test_messages_are_answered_in_order_of_arrival(gateway: Gateway, stub: Stub, conversation: str) -> None:
    """All of them, each with those before it in its prompt."""
    first = Asking(gateway, conversation, "0", **LONG)
    first.begun()
    others = []
    for number in range(1, QUEUE_LIMIT):
        others.append(Asking(gateway, conversation, str(number), stream=bool(number % 2)))
        time.sleep(0.01)
    answers = [one.answer() for one in (first, *others)]

    assert [200] * QUEUE_LIMIT == [answer.status for answer in answers]
    assert [str(number) for number in range(QUEUE_LIMIT)] == users(stub)


def test_parallel_messages_lose_and_double_nothing(gateway: Gateway, stub: Stub, conversation: str) -> None:
    """Sent at the same moment: some order, all of them, each prompt one turn longer than the one before."""
    together = threading.Barrier(QUEUE_LIMIT)

    def ask(number: int) -> int:
        together.wait(10)
        return Asking(gateway, conversation, str(number), max_tokens=1).answer().status

    with ThreadPoolExecutor(QUEUE_LIMIT) as pool:
        statuses = list(pool.map(ask, range(QUEUE_LIMIT)))
    prompts = stub.prompts()[-QUEUE_LIMIT:]

    assert [200] * QUEUE_LIMIT == statuses
    assert sorted(map(str, range(QUEUE_LIMIT))) == sorted(users(stub))
    assert [2 * at + 1 for at in range(QUEUE_LIMIT)] == [len(prompt) for prompt in prompts]
    assert all(before == after[: len(before)] for before, after in itertools.pairwise(prompts))


def test_full_queue_refuses_the_next(gateway: Gateway, conversation: str) -> None:
    """It is bounded, and says when to come back."""
    first = Asking(gateway, conversation, "first", **LONG)
    first.begun()
    waiting = [Asking(gateway, conversation, str(number), max_tokens=1) for number in range(QUEUE_LIMIT)]
    time.sleep(0.1)
    refused = Asking(gateway, conversation, "too many").answer()
    statuses = {one.answer().status for one in (first, *waiting)}

    assert (409, "conversation_busy") == (refused.status, refused.json()["error"]["code"])
    assert statuses == {200}


@pytest.mark.parametrize("stream", [True, False])
def test_busy_conversation_can_refuse(
    gateway: Gateway, stub: Stub, conversation: str, *, stream: bool
) -> None:
    """409 at once with the time to come back; the answer under way is not disturbed."""
    first = Asking(gateway, conversation, "first", **LONG)
    first.begun()
    refused = Asking(gateway, conversation, "second", on_busy="reject", stream=stream).answer()
    whole = first.answer()
    after = Asking(gateway, conversation, "third", on_busy="reject", stream=stream).answer()

    assert (409, "conversation_busy", "true") == (
        refused.status,
        refused.json()["error"]["code"],
        refused.headers["x-should-retry"],
    )
    assert 100 <= int(refused.headers["retry-after-ms"]) <= 10_000
    assert whole.body.endswith(b"data: [DONE]\n\n")
    assert after.status == 200
    assert ["first", "third"] == users(stub)


def test_newer_message_can_take_over_a_stream(gateway: Gateway, stub: Stub, conversation: str) -> None:
    """The first is told so and its node stops; both are answered together, each question once."""
    aborted = stub.stats()["aborted"]
    first = Asking(gateway, conversation, "first", **LONG)
    first.begun()
    second = Asking(gateway, conversation, "second", on_busy="restart").answer()
    broken_off = first.answer()
    prompt = stub.prompts()[-1]
    Asking(gateway, conversation, "third").answer()

    assert broken_off.is_whole
    assert b"[DONE]" not in broken_off.body
    last = broken_off.body.removesuffix(b"\n\n").rpartition(b"\n\n")[2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "interrupted"
    assert second.status == 200
    assert [("user", "first"), ("user", "second")] == [(one["role"], one["content"]) for one in prompt]
    assert ["first", "second", "third"] == users(stub)
    assert until(lambda: stub.stats()["aborted"] == aborted + 1)


def test_newer_message_can_take_over_before_the_first_byte(
    gateway: Gateway, stub: Stub, conversation: str
) -> None:
    """Without a stream the first gets a 409 that is not to be retried."""
    requests = stub.stats()["requests"]
    first = Asking(gateway, conversation, "first", max_tokens=60)
    assert until(lambda: stub.stats()["requests"] == requests + 1)
    second = Asking(gateway, conversation, "second", on_busy="restart", stream=True).answer()
    refused = first.answer()

    assert second.body.endswith(b"data: [DONE]\n\n")
    assert (409, "interrupted", "false") == (
        refused.status,
        refused.json()["error"]["code"],
        refused.headers["x-should-retry"],
    )
    assert ["first", "second"] == users(stub)


def test_hasty_user_is_answered_once(gateway: Gateway, stub: Stub, conversation: str) -> None:
    """Five messages, each taking over: the last prompt has all of them, once each."""
    asking = []
    for number in range(5):
        asking.append(
            Asking(gateway, conversation, str(number), on_busy="restart", stream=True, max_tokens=60)
        )
        time.sleep(0.15)
    last = asking[-1].answer()
    others = [one.answer() for one in asking[:-1]]

    assert last.body.endswith(b"data: [DONE]\n\n")
    assert not any(b"[DONE]" in answer.body for answer in others)
    assert ["0", "1", "2", "3", "4"] == users(stub)


class HeldUp(MemoryStore):
    """A store whose commits wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()

    async def commit(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        self.reached.set()
        await self.let_go.wait()
        return await super().commit(key, lease, change)


async def test_answer_that_is_being_stored_is_not_taken_over() -> None:
    """It is whole: its client gets it, and the newer message is answered after it."""
    store, stopped = HeldUp(), list[str]()
    keeper = LeaseKeeper(store, clock=time.time)
    dialogues = Dialogues(store, keeper, DialogueRules(), time.time)
    key, incoming = ConversationKey("t", "c"), read_incoming(b'[{"role":"user","content":"hi"}]')
    turn = await dialogues.open(key, incoming, Ask(owner="a", on_stop=stopped.append, on_busy="queue"))
    assert isinstance(turn, OpenTurn)
    spoken = answer({"content": "hello"})
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(turn.commit(TurnAnswer(message=spoken, reply=Reply())))
        await store.reached.wait()
        newer = tasks.create_task(
            dialogues.open(key, incoming, Ask(owner="b", on_stop=stopped.append, on_busy="restart"))
        )
        await asyncio.sleep(0.1)
        store.let_go.set()
    after = newer.result()

    assert stopped == []
    assert isinstance(after, OpenTurn)
    assert 3 == len(after.prompt.messages)


def test_replicas_agree_on_whose_turn_it_is(stub: Stub, conversation: str, valkey_url: str) -> None:
    """Two gateways over one store: the second waits for the first one's answer, and can take over."""
    with (
        running_gateway(f"vllm={stub.url}", options=("--redis", valkey_url)) as one,
        running_gateway(f"vllm={stub.url}", options=("--redis", valkey_url)) as other,
    ):
        first = Asking(one, conversation, "first", max_tokens=30)
        time.sleep(0.1)
        second = Asking(other, conversation, "second", max_tokens=300, stream=True)
        second.begun()
        third = Asking(one, conversation, "third", on_busy="restart").answer()
        statuses = (first.answer().status, third.status)
        broken_off = second.answer()

    assert (200, 200) == statuses
    assert b'"code":"interrupted"' in broken_off.body
    assert ["first", "second", "third"] == users(stub)


def test_nothing_unforeseen_was_logged(gateway: Gateway) -> None:
    """After all of the above."""
    assert "unforeseen" not in gateway.stderr()
    assert "Traceback" not in gateway.stderr()
