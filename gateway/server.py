"""Two HTTP servers in one process, public and admin: listening, running, and stopping together."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import uvicorn
from fastapi import FastAPI

from gateway.errors import CannotListen

_KEEP_ALIVE_S = 75
"""Longer than clients and balancers keep idle connections, so that it is never we who close first."""


@dataclass(frozen=True, slots=True)
class Door:
    """An application, where it listens, and how long its requests may take to end."""

    app: FastAPI
    listening: socket.socket
    drain_s: int
    protocol: type[asyncio.Protocol] | Literal["httptools"] = "httptools"


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process, for there are two of them in it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Take a port (0: a free one). Raises `CannotListen` naming the setting that is to be changed.

    `setting` is the port's; the host's is called like it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise CannotListen(f"cannot listen on {host}:{port}: {_remedy(error, setting)}") from error


def _remedy(error: OSError | OverflowError, setting: str) -> str:
    """Why a port could not be taken, and what to do about it."""
    host_setting = setting.replace("port", "host")
    option = "--" + setting.rpartition(".")[2].replace("_", "-")
    if isinstance(error, OverflowError):
        return f"a port is a number up to 65535; set another {option} (setting {setting})"
    number = error.errno or 0
    # The resolver's own numbers are below 0.
    reason = os.strerror(number) if number > 0 else "there is no such host"
    if number == errno.EADDRINUSE:
        return f"{reason}; stop what listens there, or choose another {option} (setting {setting})"
    if number == errno.EACCES:
        return f"{reason}; choose a port from 1024 up with {option} (setting {setting})"
    return f"{reason}; set {host_setting} to an address of this machine"


def url_of(listening: socket.socket) -> str:
    """The address of a port that was taken."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def serve_until_signal(
    doors: Sequence[Door], *, on_up: Callable[[], None], on_stop: Callable[[], None]
) -> None:
    """Run the servers until SIGTERM or SIGINT; then no new connections, and the answers under way end."""
    servers = [_Server(_config(door)) for door in doors]

    def stop() -> None:
        on_stop()
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with asyncio.TaskGroup() as tasks:
        for server, door in zip(servers, doors, strict=True):
            tasks.create_task(server.serve(sockets=[door.listening]))
        for server in servers:
            await server.is_up.wait()
        on_up()


def _config(door: Door) -> uvicorn.Config:
    return uvicorn.Config(
        door.app,
        http=door.protocol,
        ws="none",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=door.drain_s,
    )
