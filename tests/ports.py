"""Ports for servers that must be told theirs before they start, or get it again after they were killed.

They lie below those that the kernel hands out by itself (from 32768 on Linux, 49152 elsewhere): no client's
connection and no server that asked for any port takes one meanwhile. Each test process has its own range.
"""

import itertools
import os
import random
import socket
from collections.abc import Iterator

_FIRST, _BEYOND = 10_000, 32_768
_PROCESSES = 4
"""As many as `make` starts at once; what lies beyond shares."""


def free_port(*, side_by_side: int = 1) -> int:
    """A port on which nobody listens, nor on the next ones if several are wanted."""
    for port in _PORTS:
        if all(map(_is_free, range(port, port + side_by_side))):
            for _ in range(side_by_side - 1):
                next(_PORTS)
            return port
    raise AssertionError("the numbers never end")


def _range() -> Iterator[int]:
    """The ports of this process, round and round, from anywhere: another run may be under way."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
    size = (_BEYOND - _FIRST) // _PROCESSES
    begin = random.randrange(size)
    return (_FIRST + number * size + (begin + at) % size for at in itertools.count())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server would not mind old connections
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_PORTS = _range()
