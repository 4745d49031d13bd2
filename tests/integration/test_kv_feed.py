"""The feed over real ZeroMQ: losses, replays in both framings, restarts, silence, engines that connect."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import pytest
import zmq
import zmq.asyncio

from bench.stub_node.kv_forms import Cleared, KvForm, Removed, Stored
from bench.stub_node.kv_publisher import KvPublisher
from gateway.nodes import kv_feed
from gateway.nodes.kv_feed import KvFeed
from gateway.routing.kv_source import KvSource
from gateway.routing.retention import Knowledge, Retention, RetentionRules

WITHIN_S = 20.0


@pytest.fixture
async def context() -> AsyncIterator[zmq.asyncio.Context]:
    """ZeroMQ's threads, for both sides; a socket that was left open would hang the end."""
    with zmq.asyncio.Context() as context:
        yield context
        await until(lambda: not context._sockets)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that comes by itself."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following(
    publisher: KvPublisher, *, replay: bool = True, topic: str = "", listen: bool = False
) -> AsyncIterator[KvFeed]:
    """A feed on that publisher, connected, until the block is left."""
    source = KvSource(publisher.endpoint, publisher.replay_endpoint if replay else "", topic, listen)
    retention = Retention(RetentionRules(slack_s=0.0))
    feed = KvFeed("n1", source, retention, context=publisher.context)
    task = asyncio.create_task(feed.run())
    try:
        await until(lambda: feed.is_linked)
        await asyncio.sleep(0.1)  # the subscription itself is on its way
        yield feed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


def known(feed: KvFeed) -> Knowledge:
    return feed.retention.knowledge(time.monotonic())


async def test_events_arrive_and_are_booked(context: zmq.asyncio.Context) -> None:
    """From the first batch on the node is trusted; evictions and clears show."""
    async with KvPublisher(context) as publisher, following(publisher) as feed:
        assert "unknown" == known(feed).state
        await publisher.publish(time.time(), Stored([1, 2]), Stored([3], 2))
        await publisher.publish(time.time(), Removed([3]))
        await until(lambda: feed.counts.batches == 2)
        assert ("trusted", 1) == (known(feed).state, known(feed).epoch)
        assert known(feed).horizon_s is not None
        await publisher.publish(time.time(), Cleared())
        await until(lambda: known(feed).epoch == 2)


@pytest.mark.parametrize(
    "form",
    [
        KvForm(),
        KvForm(has_replay_topic=False),
        KvForm(topic=b"kv@10.0.0.7:8000@qwen"),
        KvForm(topic=b"kv-events", has_replay_topic=False, events="row", hashes="signed"),
        KvForm(batch="map", hashes="bytes"),
    ],
    ids=["maps", "no-replay-topic", "topic", "rows", "batch-map"],
)
async def test_lost_batches_are_asked_for_again(context: zmq.asyncio.Context, form: KvForm) -> None:
    """In either framing of a replay, with a topic or none, the gap is filled and the node stays trusted."""
    async with KvPublisher(context, form) as publisher, following(publisher) as feed:
        await publisher.publish(time.time(), Stored([1]))
        for block in range(2, 30):
            await publisher.publish(time.time(), Stored([block], block - 1), copies=0)
        await publisher.publish(time.time(), Stored([30], 29))
        await until(lambda: feed.counts.batches == 30)
        assert (1, 1, 0) == (feed.counts.gaps, feed.counts.gaps_filled, feed.counts.malformed)
        assert ("trusted", 1) == (known(feed).state, len(feed.retention))


async def test_the_past_is_asked_for_when_joining_late(context: zmq.asyncio.Context) -> None:
    """What was published before anybody listened is learnt with the first live batch."""
    async with KvPublisher(context) as publisher:
        for block in range(100):
            await publisher.publish(time.time() - 100 + block, Stored([block]))
        async with following(publisher) as feed:
            await publisher.publish(time.time(), Removed([50]))
            await until(lambda: feed.counts.batches == 101)
            assert (99, "trusted", 1) == (len(feed.retention), known(feed).state, known(feed).epoch)
            assert 45 <= (known(feed).horizon_s or 0) <= 51


async def test_a_gap_without_a_replay_makes_the_node_suspect(context: zmq.asyncio.Context) -> None:
    """And its page says which setting would have prevented it."""
    async with KvPublisher(context) as publisher, following(publisher, replay=False) as feed:
        await publisher.publish(time.time(), Stored([1]))
        await publisher.publish(time.time(), Cleared(), copies=0)
        await publisher.publish(time.time(), Stored([2]))
        await until(lambda: feed.counts.batches == 2)
        assert ("suspect", 0) == (known(feed).state, publisher.replays_asked)
        assert "replay_endpoint" in feed.notes(has_answered=True)[0]


async def test_a_silent_replay_holds_up_nothing_twice(
    context: zmq.asyncio.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for once; then live events go on without it, and the operator is told."""
    monkeypatch.setattr(kv_feed, "_REPLAY_WITHIN_S", 0.1)
    async with KvPublisher(context) as publisher:
        silent = context.socket(zmq.PULL)
        port = silent.bind_to_random_port("tcp://127.0.0.1")
        source = KvSource(publisher.endpoint, f"tcp://127.0.0.1:{port}")
        feed = KvFeed("n1", source, Retention(), context=context)
        task = asyncio.create_task(feed.run())
        await until(lambda: feed.is_linked)
        await asyncio.sleep(0.1)
        await publisher.publish(time.time(), Stored([1]))
        for block in range(2, 60):
            await publisher.publish(time.time(), Stored([block]), copies=block % 2)
        await until(lambda: feed.counts.batches == 30)
        assert (29, 0) == (feed.counts.gaps, feed.counts.gaps_filled)
        assert "does not repeat" in feed.notes(has_answered=True)[0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        silent.close(linger=0)


async def test_a_restart_is_a_new_epoch(context: zmq.asyncio.Context) -> None:
    """The feed reconnects by itself; the engine counts from 0 again, so its cache is another."""
    async with KvPublisher(context) as publisher, following(publisher) as feed:
        for block in range(5):
            await publisher.publish(time.time(), Stored([block]))
        await until(lambda: feed.counts.batches == 5)
        await publisher.stop()
        await until(lambda: not feed.is_linked)
        assert ("suspect", 0.0) == (known(feed).state, known(feed).vouched_s)
        publisher.start()
        await until(lambda: feed.is_linked)
        await asyncio.sleep(0.1)
        await publisher.publish(time.time(), Stored([1]))
        await until(lambda: feed.counts.batches == 6)
        assert ("trusted", 2, 1) == (known(feed).state, known(feed).epoch, feed.counts.restarts)


async def test_a_restart_that_overtook_the_old_count_is_found(context: zmq.asyncio.Context) -> None:
    """The new engine published more than the old one before anybody was connected again."""
    async with KvPublisher(context) as publisher, following(publisher) as feed:
        await publisher.publish(time.time(), Stored([1]))
        await until(lambda: feed.counts.batches == 1)
        await publisher.stop()
        await until(lambda: not feed.is_linked)
        publisher.start()
        for block in range(8):
            await publisher.publish(time.time(), Stored([block]), copies=0)
        await until(lambda: feed.is_linked)
        await asyncio.sleep(0.1)
        await publisher.publish(time.time(), Stored([1]))
        await until(lambda: feed.counts.restarts == 1)
        await until(lambda: known(feed).state == "trusted")
        assert 2 == known(feed).epoch


async def test_silence_is_not_death(context: zmq.asyncio.Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle engine answers heartbeats, and what it said last still holds."""
    monkeypatch.setattr(kv_feed, "_HEARTBEAT_MS", 50)
    monkeypatch.setattr(kv_feed, "_DEAD_AFTER_MS", 150)
    async with KvPublisher(context) as publisher, following(publisher) as feed:
        await publisher.publish(time.time(), Stored([1]))
        await until(lambda: feed.counts.batches == 1)
        await asyncio.sleep(0.8)
        assert (True, "trusted") == (feed.is_linked, known(feed).state)


async def test_a_publisher_that_hangs_is_noticed(
    context: zmq.asyncio.Context, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    """A host that vanished closes nothing; the heartbeats miss it, and nothing is vouched for any more."""
    monkeypatch.setattr(kv_feed, "_HEARTBEAT_MS", 50)
    monkeypatch.setattr(kv_feed, "_DEAD_AFTER_MS", 150)
    swallowing = asyncio.Event()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not swallowing.is_set():
                sink.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", publisher.port)
        with closing(writer), closing(back):
            tasks = {asyncio.ensure_future(pump(reader, back)), asyncio.ensure_future(pump(there, writer))}
            _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async with KvPublisher(context) as publisher:
        between = await asyncio.start_server(relay, "127.0.0.1", unused_port)
        feed = KvFeed("n1", KvSource(f"tcp://127.0.0.1:{unused_port}"), Retention(), context=context)
        task = asyncio.create_task(feed.run())
        await until(lambda: feed.is_linked)
        await asyncio.sleep(0.1)
        await publisher.publish(time.time(), Stored([1]))
        await until(lambda: feed.counts.batches == 1)
        swallowing.set()
        await until(lambda: not feed.is_linked)
        assert "suspect" == known(feed).state
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        between.close()
    await until(lambda: not any("relay" in repr(task) for task in asyncio.all_tasks()))


async def test_garbage_ends_nothing(context: zmq.asyncio.Context) -> None:
    """Payloads, messages and events that make no sense are counted, and the next batch is booked."""
    async with KvPublisher(context) as publisher, following(publisher) as feed:
        await publisher.publish(time.time(), Stored([1]))
        await publisher.publish_bytes(b"\xc1\xc1")
        await publisher.send(b"", b"short", b"x")
        await publisher.send(b"one frame")
        await publisher.publish(time.time(), Stored([2]))
        await until(lambda: feed.counts.batches == 3)
        assert (3, "suspect") == (feed.counts.malformed, known(feed).state)


async def test_a_message_beyond_the_limit_is_not_taken(
    context: zmq.asyncio.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ drops the connection for it, for good; the feed makes another, and the rest goes on."""
    monkeypatch.setattr(kv_feed, "_STUCK_S", 0.3)
    monkeypatch.setattr(kv_feed, "_REPLAY_WITHIN_S", 0.3)
    monkeypatch.setattr(kv_feed, "_RETRY_S", 0.02)
    async with KvPublisher(context) as publisher, following(publisher) as feed:
        await publisher.publish(time.time(), Stored([1]))
        await until(lambda: feed.counts.batches == 1)
        await publisher.publish_bytes(bytes(kv_feed.MAX_PAYLOAD + 1))
        await until(lambda: not feed.is_linked)
        await until(lambda: feed.is_linked)
        await asyncio.sleep(0.1)
        await publisher.publish(time.time(), Stored([2]))
        await until(lambda: feed.counts.batches >= 2)
        assert "suspect" == known(feed).state


async def test_only_the_topic_asked_for_is_followed(context: zmq.asyncio.Context) -> None:
    """Several publishers may share an address."""
    form = KvForm(topic=b"kv@b@model")
    async with KvPublisher(context, form) as publisher, following(publisher, topic="kv@b") as feed:
        await publisher.send(b"kv@a@model", bytes(8), KvForm().encode(1.0, [Cleared()]))
        await publisher.publish(time.time(), Stored([1]))
        await until(lambda: feed.counts.batches == 1)
        assert (0, 1) == (feed.counts.clears, feed.counts.stored_blocks)


async def test_a_publisher_that_connects_is_named_with_its_flag(
    context: zmq.asyncio.Context, unused_port: int
) -> None:
    """Its endpoint has no wildcard, so both sides wait for each other; the note says how to end that."""
    endpoint = f"tcp://127.0.0.1:{unused_port}"
    feed = KvFeed("n1", KvSource(endpoint), Retention(), context=context)
    task = asyncio.create_task(feed.run())
    await until(lambda: bool(feed.notes(has_answered=True)))
    (note,) = feed.notes(has_answered=True)
    assert all(part in note for part in (endpoint, '"endpoint":"tcp://*:5557"', '"bind":true'))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_can_listen_for_an_engine_that_connects(
    context: zmq.asyncio.Context, unused_port: int
) -> None:
    """Where the engine's setting cannot be changed, this side takes the other part."""
    endpoint = f"tcp://127.0.0.1:{unused_port}"
    feed = KvFeed("n1", KvSource(endpoint, listen=True), Retention(), context=context)
    task = asyncio.create_task(feed.run())
    engine = context.socket(zmq.PUB)
    engine.connect(endpoint)
    await until(lambda: feed.is_linked)
    await asyncio.sleep(0.1)
    await engine.send_multipart([b"", bytes(8), KvForm().encode(time.time(), [Stored([1])])])
    await until(lambda: feed.counts.stored_blocks == 1)
    engine.close(linger=0)
    await until(lambda: not feed.is_linked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_connected_publisher_that_says_nothing_is_named(context: zmq.asyncio.Context) -> None:
    """Only once the node has answered requests: before, silence is right."""
    async with KvPublisher(context) as publisher, following(publisher) as feed:
        assert () == feed.notes(has_answered=False)
        assert "without a KV event" in feed.notes(has_answered=True)[0]


async def test_an_address_that_is_taken_is_told_and_tried_again(
    context: zmq.asyncio.Context, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    """A feed never ends the process that it is a task of."""
    monkeypatch.setattr(kv_feed, "_RETRY_S", 0.02)
    endpoint = f"tcp://127.0.0.1:{unused_port}"
    taken = context.socket(zmq.PUB)
    taken.bind(endpoint)
    feed = KvFeed("n1", KvSource(endpoint, listen=True), Retention(), context=context)
    task = asyncio.create_task(feed.run())
    await until(lambda: bool(feed.notes(has_answered=False)))
    assert "in use" in feed.notes(has_answered=False)[0]
    taken.close(linger=0)
    await until(lambda: not feed.notes(has_answered=False))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (("http://a:1",), "tcp://HOST:PORT"),
        (("tcp://*:5557",), "instead of"),
        (("tcp://a:1", "tcp://*:2"), "instead of"),
    ],
)
def test_an_address_that_cannot_be_is_refused(source: tuple[str, ...], problem: str) -> None:
    """At the settings, not at three in the morning."""
    with pytest.raises(ValueError, match=problem):
        KvSource(*source)


async def test_a_burst_is_booked_whole(context: zmq.asyncio.Context) -> None:
    """Twenty thousand blocks at once, none lost, and other tasks have their turns meanwhile."""
    async with KvPublisher(context) as publisher, following(publisher) as feed:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while feed.counts.batches < 2000:
                turns += 1
                await asyncio.sleep(0)

        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(other())
            for batch in range(2000):
                await publisher.publish(time.time(), Stored(range(batch * 10, batch * 10 + 10)))
        assert (20_000, 0, "trusted") == (feed.counts.stored_blocks, feed.counts.gaps, known(feed).state)
        assert turns > 20
