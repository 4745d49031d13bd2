"""KV events: what decoding and booking cost, and what a node's memory of them weighs.

Prints three tables. The first: blocks a second through the decoder and the retention on one core, for each
form that an engine writes, with batches as a busy node publishes them: per turn a removal for every block
that is evicted, a prompt's new blocks in one event, then the answer's, one by one. The second: the same over
ZeroMQ into a feed on the event loop, with the publisher in a process of its own. The third: bytes per
remembered prefix, and what it costs to ask for a node's knowledge and for one placement's odds. Run it as
`python -m bench.kv_events`; half a minute on two cores.
"""

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import statistics
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import uvloop
import zmq
import zmq.asyncio

from bench.stub_node.kv_forms import Event, KvForm, Removed, Stored
from gateway.nodes.kv_events import Frame
from gateway.nodes.kv_feed import KvFeed
from gateway.nodes.kv_sequence import KvSequence
from gateway.routing.kv_source import KvSource
from gateway.routing.retention import Retention, odds

FORMS = {
    "maps, 64-bit hashes": KvForm(),
    "maps, 32-byte hashes": KvForm(hashes="bytes"),
    "rows, 64-bit hashes": KvForm(events="row"),
    "rows, 32-byte hashes": KvForm(events="row", hashes="bytes"),
}
PROMPT_BLOCKS = 8
ANSWER_BLOCKS = 8
RESIDENT = 2_000
"""Dialogues in the node's cache: as many turns pass before one is evicted."""
TURNS_A_BATCH = 4
BOUND_BLOCKS_PER_S = 100_000


def turns(count: int) -> Iterator[list[Event]]:
    """Per batch what some turns of different dialogues do to a full cache."""
    tips: deque[tuple[int, list[int]]] = deque()
    block = 1 << 63
    for _ in range(count // TURNS_A_BATCH):
        events: list[Event] = []
        for _ in range(TURNS_A_BATCH):
            if len(tips) >= RESIDENT:
                _, gone = tips.popleft()
                events.extend(Removed([one]) for one in reversed(gone))
            fresh = list(range(block, block + PROMPT_BLOCKS + ANSWER_BLOCKS))
            block += len(fresh)
            events.append(Stored(fresh[:PROMPT_BLOCKS], None))
            events.extend(Stored([one], one - 1) for one in fresh[PROMPT_BLOCKS:])
            tips.append((fresh[-1], fresh))
        yield events


def frames(form: KvForm, count: int) -> list[Frame]:
    """Those batches as an engine writes them."""
    return [Frame(seq=seq, payload=form.encode(1e9 + seq, events)) for seq, events in enumerate(turns(count))]


def blocks_in(sequence: KvSequence) -> int:
    """Blocks that events named."""
    return sequence.counts.stored_blocks + sequence.counts.removed_blocks


def booked(batches: Sequence[Frame]) -> tuple[float, int]:
    """Seconds of this core for all of them, and the blocks."""
    sequence = KvSequence(Retention())
    before = time.process_time()
    for frame in batches:
        sequence.take(frame, 1e9 + frame.seq)
    seconds = time.process_time() - before
    assert sequence.counts.gaps == sequence.counts.malformed == 0
    return seconds, blocks_in(sequence)


def print_decoding(count: int, rounds: int) -> None:
    print(f"decoding and booking, one core, {TURNS_A_BATCH} turns a batch, 16 tokens a block\n")
    print("  form                    bytes/block   blocks/s median (worst)   us/block")
    for name, form in FORMS.items():
        batches = frames(form, count)
        size = sum(len(frame.payload) for frame in batches)
        measured = [booked(batches) for _ in range(rounds)]
        blocks = measured[0][1]
        rates = sorted(blocks / seconds for seconds, _ in measured)
        rate = statistics.median(rates)
        print(f"  {name:<22} {size / blocks:>12.0f}   {rate:>12,.0f} ({rates[0]:,.0f})   {1e6 / rate:>8.2f}")


def publish(form: KvForm, count: int, pipe: multiprocessing.connection.Connection) -> None:
    """The other process: publishes all batches when told to, as fast as they are taken."""
    batches = frames(form, count)
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.set_hwm(0)
        pipe.send(publisher.bind_to_random_port("tcp://127.0.0.1"))
        pipe.recv()
        for frame in batches:
            publisher.send_multipart([b"", frame.seq.to_bytes(8, "big"), frame.payload])
            if frame.seq % 64 == 0:
                time.sleep(0.001)  # what ZeroMQ would drop is not measured here
        pipe.recv()


async def over_zmq(form: KvForm, count: int) -> tuple[float, float, int, int]:
    """CPU seconds of this process, wall seconds, blocks booked, batches lost."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=publish, args=(form, count, there))
    process.start()
    port = await asyncio.to_thread(here.recv)
    expected = len(range(count // TURNS_A_BATCH))
    with zmq.asyncio.Context() as context:
        feed = KvFeed("bench", KvSource(f"tcp://127.0.0.1:{port}"), Retention(), context=context)
        task = asyncio.create_task(feed.run())
        while not feed.is_linked:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        here.send("go")
        cpu, wall, seen = time.process_time(), time.perf_counter(), -1
        while feed.counts.batches < expected and feed.counts.batches != seen:
            seen = feed.counts.batches
            for _ in range(100):
                await asyncio.sleep(0.005)
                if feed.counts.batches >= expected:
                    break
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    here.send("end")
    await asyncio.to_thread(process.join)
    counts = feed.counts
    return cpu, wall, counts.stored_blocks + counts.removed_blocks, expected - counts.batches


def print_feed(count: int) -> None:
    print("\nover ZeroMQ into a feed on the loop\n")
    print("  form                    blocks per CPU second   blocks/s   lost batches")
    for name, form in FORMS.items():
        cpu, wall, blocks, lost = uvloop.run(over_zmq(form, count))
        print(f"  {name:<22} {blocks / cpu:>22,.0f} {blocks / wall:>10,.0f}   {lost:>12}")


def each(call: Callable[[], object], times: int) -> float:
    """Microseconds a call."""
    before = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - before) / times * 1e6


def print_memory() -> None:
    tracemalloc.start()
    retention = Retention()
    before, _ = tracemalloc.get_traced_memory()
    for one in range(200_000):
        retention.stored([(1 << 63) + one], None, 1e9 + one / 8)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for one in range(150_000, 160_000):
        retention.removed([(1 << 63) + one], 1e9 + 30_000)
    now = 1e9 + 30_000
    knowledge = retention.knowledge(now)
    asking = each(lambda: retention.knowledge(now), 100_000)
    weighing = each(lambda: odds(60.0, knowledge), 100_000)
    size = after - before
    print(f"\nmemory: {size / 65_536:.0f} bytes a prefix, {size / 1e6:.1f} MB at the cap")
    print(f"knowledge() {asking:.2f} us, odds() {weighing:.2f} us")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.kv_events", description=__doc__)
    parser.add_argument("--turns", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print_decoding(options.turns, options.rounds)
    print_feed(options.turns)
    print_memory()
    print(f"\nwanted: at least {BOUND_BLOCKS_PER_S:,} blocks/s on one core")


if __name__ == "__main__":
    main()
