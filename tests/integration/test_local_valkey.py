"""The store of the one-machine stack: durable, never evicting, on this machine only."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from gateway.local import valkey
from tests.ports import free_port

STARTED_WITHIN_S = 10.0


@contextmanager
def running(folder: Path, port: int) -> Iterator[tuple[redis.Redis, subprocess.Popen[bytes]]]:
    binary = valkey.find_binary()
    assert binary is not None
    command = valkey.command(binary, folder=folder, port=port)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        until = time.monotonic() + STARTED_WITHIN_S
        while not asyncio.run(valkey.answers(port)):
            assert time.monotonic() < until
            time.sleep(0.02)
        with redis.Redis.from_url(valkey.url(port), decode_responses=True) as client:
            yield client, server
        server.terminate()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """The server syncs before it answers."""
    port = free_port()
    with running(tmp_path, port) as (client, server):
        client.set("turn", "said")
        server.kill()
    with running(tmp_path, port) as (client, _):
        assert client.get("turn") == "said"


def test_it_never_evicts_and_listens_on_this_machine_only(tmp_path: Path) -> None:
    """A dialogue is not a cache entry, and there is no password."""
    with running(tmp_path, free_port()) as (client, _):
        wanted = {
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
            "appendfsync": "always",
            "bind": "127.0.0.1",
        }
        assert wanted == {name: client.config_get(name)[name] for name in wanted}


def test_a_port_without_a_server_does_not_answer() -> None:
    """Not ready is an answer, not an error."""
    assert asyncio.run(valkey.answers(free_port())) is False
