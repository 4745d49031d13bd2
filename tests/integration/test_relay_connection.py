"""The pool of connections to one node: reuse, the race of keep-alive, pauses and deadlines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.errors import ClientStalled, NodeBroke, NodeRefused, NodeSilent
from gateway.nodes import relay
from gateway.nodes.body import BodySink
from gateway.nodes.connection import Exchange, NodePool, Patience
from tests.raw_node import STREAM_HEAD, Line, RawNode, chunk, running_raw_node, whole

SHORT = Patience(connect_s=1.0, first_byte_s=0.2, idle_s=0.2)
BODY = b"x" * 1000


def answers(line: Line) -> None:
    """Say the same to everybody."""
    line.send(whole(BODY))


@pytest.fixture
def node() -> Iterator[RawNode]:
    """A node whose bytes the test writes."""
    with running_raw_node(answers) as raw:
        yield raw


@contextlib.asynccontextmanager
async def pool_of(node: RawNode, patience: Patience | None = None) -> AsyncIterator[NodePool]:
    """The pool, whose connections are closed at the end."""
    pool = NodePool(node.url, patience or Patience())
    yield pool
    pool.close()
    await asyncio.sleep(0.01)


async def ask(pool: NodePool) -> bytes:
    """One exchange, to its end."""
    exchange, _ = await relay.send(pool, "", (), b"{}")
    sink = BodySink()
    exchange.pump(sink)
    try:
        await exchange.done
    finally:
        exchange.abort()
    return sink.value()


async def test_connection_is_used_again(node: RawNode) -> None:
    """One after the other share one; two at once have one each."""
    async with pool_of(node) as pool:
        one_by_one = [await ask(pool) for _ in range(3)]
        before = node.connections
        at_once = await asyncio.gather(ask(pool), ask(pool))

    assert [BODY] * 5 == [*one_by_one, *at_once]
    assert (1, 2) == (before, node.connections)


@pytest.mark.parametrize("dead", [1, 5])
async def test_node_that_closes_an_idle_connection_costs_no_request(node: RawNode, dead: int) -> None:
    """The request met the closing on its way: sent once more, on a new connection, it is answered once."""
    async with pool_of(node) as pool:
        await asyncio.gather(*(ask(pool) for _ in range(dead)))
        node.script = lambda line: line.hang_up() if line.number == dead else answers(line)
        answer = await ask(pool)

    assert BODY == answer
    assert dead + 2 == len(node.seen)


async def test_node_that_closed_meanwhile_is_noticed_beforehand(node: RawNode) -> None:
    """A connection that is known to be closed is not written into."""

    def closes(line: Line) -> None:
        answers(line)
        line.hang_up()

    async with pool_of(node) as pool:
        node.script = closes
        for _ in range(3):
            assert BODY == await ask(pool)
            await asyncio.sleep(0.02)

    assert len(node.seen) == node.connections == 3


async def test_node_that_dies_on_a_new_connection_is_not_asked_twice(node: RawNode) -> None:
    """There, the request may have been the cause."""
    node.script = lambda line: line.hang_up()
    async with pool_of(node) as pool:
        with pytest.raises(NodeBroke):
            await ask(pool)

    assert len(node.seen) == 1


async def test_node_that_answered_a_byte_is_not_asked_twice(node: RawNode) -> None:
    """Also on a used connection: it has begun to work."""

    def half(line: Line) -> None:
        line.send(b"HTTP/1.1 200 OK\r\ncon")
        line.hang_up()

    async with pool_of(node) as pool:
        await ask(pool)
        node.script = half
        with pytest.raises(NodeBroke):
            await ask(pool)

    assert len(node.seen) == 2


async def test_pause_ends_with_its_answer(node: RawNode) -> None:
    """A slow client may stop the reading with the last piece; the next one gets a connection that reads."""

    class Pausing(BodySink):
        def feed(self, data: bytes) -> None:
            super().feed(data)
            exchange.set_reading(on=False)

    async with pool_of(node, SHORT) as pool:
        exchange = await exchange_that(node, STREAM_HEAD, pool=pool, sink=Pausing())
        assert node.last is not None
        node.last.send(chunk(b"all of it") + chunk(b""))
        await exchange.done
        node.script = answers
        answer = await ask(pool)

    assert BODY == answer
    assert node.connections == 1


async def exchange_that(
    node: RawNode, *pieces: bytes, pool: NodePool, sink: BodySink | None = None
) -> Exchange:
    """An exchange with a node that sends these and then nothing."""
    node.script = lambda line: line.send(*pieces)
    exchange, _ = await relay.send(pool, "", (), b"{}")
    exchange.pump(sink or BodySink())
    return exchange


@pytest.mark.parametrize("pieces", [(), (STREAM_HEAD,), (STREAM_HEAD, chunk(b"a")), (STREAM_HEAD[:20],)])
async def test_silence_ends_at_the_deadline(node: RawNode, pieces: tuple[bytes, ...]) -> None:
    """Before the head, in it, behind it and between two pieces; and the connection is dropped."""
    async with asyncio.timeout(5), pool_of(node, SHORT) as pool:
        with pytest.raises(NodeSilent):
            await (await exchange_that(node, *pieces, pool=pool)).done
        await asyncio.to_thread(node.hung_up.wait, 5)

    assert node.hung_up.is_set()


@pytest.mark.parametrize(
    ("patience", "pieces"),
    [
        (Patience(first_byte_s=60, idle_s=0.2), (STREAM_HEAD, chunk(b"a"))),
        (Patience(first_byte_s=0.2, idle_s=60), (STREAM_HEAD,)),
    ],
)
async def test_each_deadline_counts_for_its_own_part(
    node: RawNode, patience: Patience, pieces: tuple[bytes, ...]
) -> None:
    """A long first-byte deadline does not hide a stall, nor a long idle one a missing first byte."""
    async with asyncio.timeout(5), pool_of(node, patience) as pool:
        with pytest.raises(NodeSilent):
            await (await exchange_that(node, *pieces, pool=pool)).done


async def test_client_that_stalls_is_not_the_nodes_failure(node: RawNode) -> None:
    """Paused, the silence is the client's; it ends at the same deadline, under another name."""
    async with asyncio.timeout(5), pool_of(node, SHORT) as pool:
        exchange = await exchange_that(node, STREAM_HEAD, chunk(b"a"), pool=pool)
        await asyncio.sleep(0.05)
        exchange.set_reading(on=False)
        with pytest.raises(ClientStalled):
            await exchange.done


async def test_time_paused_is_not_counted_against_the_node(node: RawNode) -> None:
    """After a pause the node has its whole time again."""
    async with asyncio.timeout(5), pool_of(node, Patience(idle_s=0.5)) as pool:
        exchange = await exchange_that(node, STREAM_HEAD, chunk(b"a"), pool=pool)
        for _ in range(5):
            exchange.set_reading(on=False)
            await asyncio.sleep(0.15)
            exchange.set_reading(on=True)
        assert not exchange.done.done()
        exchange.abort()


async def test_no_listener_is_refused(unused_port: int) -> None:
    """At once, by name."""
    pool = NodePool(f"http://127.0.0.1:{unused_port}", Patience())
    with pytest.raises(NodeRefused):
        await relay.send(pool, "", (), b"{}")
