"""The composition root of the gateway process: the only place where doors and edges are put together."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import redis.asyncio
import structlog
import uvicorn
from fastapi import FastAPI

from gateway.api.admin import admin_app
from gateway.api.chat_protocol import chat_protocol
from gateway.api.health import Readiness
from gateway.api.public import public_app
from gateway.chat import Chat
from gateway.dispatch import Dispatcher
from gateway.errors import CannotListen
from gateway.keys.everybody import Everybody
from gateway.keys.keyring import Keyring
from gateway.keys.memory_keys import MemoryKeys
from gateway.keys.pepper import read_pepper
from gateway.keys.redis_keys import RedisKeys
from gateway.nodes.roster import Roster
from gateway.routing.ledger import Ledger
from gateway.routing.router import Router
from gateway.settings import Settings
from gateway.telemetry import Telemetry
from history.dialogue import Dialogues
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.ports import ConversationStore
from history.redis_store import RedisStore

_KEEP_ALIVE_S = 75
"""Longer than clients and balancers keep idle connections, so that it is never we who close first."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the gateway can be reached once it accepts requests."""

    url: str
    admin_url: str


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


async def serve(settings: Settings, env: Mapping[str, str], on_ready: Callable[[Listening], None]) -> None:
    """Run a gateway until SIGTERM or SIGINT, then drain. Raises `CannotListen` if a port is taken."""
    public_socket = _listen(settings.server.host, settings.server.port, "server.port")
    admin_socket = _listen(settings.server.admin_host, settings.server.admin_port, "server.admin_port")
    store = conversation_store(settings)
    roster = Roster(settings.nodes, settings.relay)
    telemetry = Telemetry()
    keeper = LeaseKeeper(store, clock=time.time)
    key_client = _key_client(settings)
    authenticator, keyring = _authenticator(settings, env, key_client)
    router = Router(roster.nodes, Ledger(), settings.routing)
    readiness = Readiness(lambda: roster.nodes, store.ping)
    chat = Chat(
        authenticator=authenticator,
        dialogues=Dialogues(store, keeper, settings.history.rules, time.time),
        dispatcher=Dispatcher(roster, router, telemetry, time.time),
        router=router,
        telemetry=telemetry,
        history=settings.history,
        clock=time.time,
        replica=secrets.token_hex(8),
    )
    protocol = chat_protocol(chat.answer, clock=time.time, max_body=settings.server.max_body_bytes)
    public = public_app(
        roster=roster,
        authenticator=authenticator,
        readiness=readiness,
        telemetry=telemetry,
        clock=time.time,
    )
    admin = admin_app(
        nodes=lambda: roster.nodes,
        authenticator=authenticator,
        readiness=readiness,
        telemetry=telemetry,
        clock=time.time,
    )
    drain_s = int(settings.server.drain_s)
    servers = {
        _Server(_config(public, drain_s, http=protocol)): public_socket,
        _Server(_config(admin, 1)): admin_socket,
    }
    try:
        if keyring is not None:
            await keyring.load()
        await roster.probe_all()
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(keeper.run()), tasks.create_task(roster.run())]
            if keyring is not None:
                background.append(tasks.create_task(keyring.run()))
            await _serve_until_signal(servers, readiness, on_ready)
            for task in background:
                task.cancel()
    finally:
        roster.close()
        await store.close()
        if key_client is not None:
            await key_client.aclose()


def conversation_store(settings: Settings) -> ConversationStore:
    """The store of dialogues that the settings name."""
    if settings.store.url == "memory":
        return MemoryStore()
    ttl_ms = int(settings.store.ttl_days * 86_400_000) or None
    return RedisStore(
        settings.store.url,
        ttl_ms=ttl_ms,
        pool_size=settings.store.pool_size,
        timeout_s=settings.store.timeout_s,
    )


def _key_client(settings: Settings) -> redis.asyncio.Redis | None:
    if not settings.auth.enabled or settings.store.url == "memory":
        return None
    return redis.asyncio.Redis.from_url(settings.store.url, socket_timeout=settings.store.timeout_s)


def _authenticator(
    settings: Settings, env: Mapping[str, str], client: redis.asyncio.Redis | None
) -> tuple[Everybody | Keyring, Keyring | None]:
    if not settings.auth.enabled:
        return Everybody(), None
    pepper = read_pepper(env, configured=settings.auth.pepper)
    keys = MemoryKeys() if client is None else RedisKeys(client)
    keyring = Keyring(keys, pepper=pepper)
    return keyring, keyring


async def _serve_until_signal(
    servers: Mapping[_Server, socket.socket],
    readiness: Readiness,
    on_ready: Callable[[Listening], None],
) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # Readiness first: a balancer that asks between now and the closed port is told.
        readiness.is_draining = True
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with asyncio.TaskGroup() as tasks:
        for server, listening in servers.items():
            tasks.create_task(server.serve(sockets=[listening]))
        for server in servers:
            await server.is_up.wait()
        public, admin = servers.values()
        on_ready(Listening(url=_url(public), admin_url=_url(admin)))


def _config(
    app: FastAPI, drain_s: int, *, http: type[asyncio.Protocol] | Literal["httptools"] = "httptools"
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
    )


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}. Set another {setting}."
        ) from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
