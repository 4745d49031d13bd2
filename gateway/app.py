"""The composition root of the gateway process: the only place where doors and edges are put together."""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import structlog

from gateway.api.admin import admin_app
from gateway.api.chat_protocol import chat_protocol
from gateway.api.conversations import ConversationRoutes
from gateway.api.health import Readiness
from gateway.api.public import identified, public_app
from gateway.background import Background
from gateway.chat import Chat
from gateway.config_file.places import prompts_folder
from gateway.config_file.prompts import read_instructions
from gateway.conversations import Conversations
from gateway.dispatch import Dispatcher
from gateway.errors import BadOption
from gateway.keys.everybody import Everybody
from gateway.keys.keyring import Keyring
from gateway.keys.pepper import read_pepper
from gateway.keys.redis_keys import RedisKeys
from gateway.nodes.roster import Roster
from gateway.routing.ledger import Ledger
from gateway.routing.router import Router
from gateway.server import Door, listen, serve_until_signal, url_of
from gateway.settings import Settings
from gateway.telemetry import Telemetry
from gateway.upkeep import Upkeep
from history.archived_store import with_archive
from history.archivist import Archivist
from history.compactor import Compactor
from history.dialogue import Dialogues
from history.editing import Editor
from history.forking import Forks
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.object_archive import ObjectArchive
from history.ports import ConversationStore
from history.recaller import Recaller
from history.redis_check import check_store
from history.redis_client import redis_client
from history.redis_store import RedisStore

log = structlog.get_logger()

_ADMIN_DRAIN_S = 1


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the gateway can be reached once it accepts requests."""

    url: str
    admin_url: str


@dataclass(frozen=True, slots=True)
class Edges:
    """What touches the outside world, open."""

    store: ConversationStore
    archivist: Archivist | None
    recaller: Recaller
    roster: Roster
    authenticator: Everybody | Keyring


async def serve(settings: Settings, env: Mapping[str, str], on_ready: Callable[[Listening], None]) -> None:
    """Run a gateway until SIGTERM or SIGINT, then drain. Raises `CannotListen` if a port is taken."""
    server = settings.server
    public_port = listen(server.host, server.port, "server.port")
    admin_port = listen(server.admin_host, server.admin_port, "server.admin_port")
    async with _edges(settings, env) as edges, asyncio.TaskGroup() as tasks:
        keeper = LeaseKeeper(edges.store, clock=time.time)
        needed = edges.store.ping if settings.history.on_outage == "fail_closed" else None
        readiness = Readiness(lambda: edges.roster.nodes, needed)
        chat = _chat(settings, edges, keeper)
        edges.roster.on_lost = chat.upkeep.lost
        background = [
            tasks.create_task(keeper.run()),
            tasks.create_task(edges.roster.run()),
            tasks.create_task(chat.upkeep.run()),
        ]
        if isinstance(edges.authenticator, Keyring):
            background.append(tasks.create_task(edges.authenticator.run()))

        def drain() -> None:
            # Readiness first: a balancer that asks between now and the closed port is told.
            readiness.is_draining = True

        await serve_until_signal(
            _doors(settings, edges, chat, readiness, (public_port, admin_port)),
            on_up=lambda: on_ready(Listening(url=url_of(public_port), admin_url=url_of(admin_port))),
            on_stop=drain,
        )
        for task in background:
            task.cancel()


def _chat(settings: Settings, edges: Edges, keeper: LeaseKeeper) -> Chat:
    """The use case, with all that it calls."""
    telemetry, rules = Telemetry(), settings.history.rules
    router = Router(edges.roster.nodes, Ledger(), settings.routing)
    dispatcher = Dispatcher(edges.roster, router, telemetry, time.time, total_s=settings.relay.total_s)
    dialogues = Dialogues(
        edges.store,
        keeper,
        rules,
        time.time,
        retention_s=settings.routing.retention_s,
        recaller=edges.recaller,
    )
    upkeep = Upkeep(
        dialogues=dialogues,
        compactor=Compactor(edges.store, rules, read_instructions(prompts_folder()), time.time),
        background=Background(dispatcher, router, telemetry, time.time),
        archivist=edges.archivist,
        rules=settings.history.upkeep,
        compaction=rules.compaction,
    )
    return Chat(
        authenticator=edges.authenticator,
        dialogues=dialogues,
        dispatcher=dispatcher,
        router=router,
        telemetry=telemetry,
        upkeep=upkeep,
        history=settings.history,
        clock=time.time,
        replica=secrets.token_hex(8),
    )


def _conversations(settings: Settings, edges: Edges, chat: Chat) -> Conversations:
    """What is done with dialogues beside talking, over what the chat use case has."""
    store, rules = edges.store, settings.history.rules
    editor = Editor(chat.dialogues, store, rules, time.time, lambda: f"{chat.replica}-{next(chat.numbers)}")
    return Conversations(
        store=store,
        editor=editor,
        forks=Forks(editor, store, rules),
        upkeep=chat.upkeep,
        new_id=lambda: f"conv_{secrets.token_hex(16)}",
        forget=edges.recaller.forget,
    )


def _doors(
    settings: Settings,
    edges: Edges,
    chat: Chat,
    readiness: Readiness,
    ports: tuple[socket.socket, socket.socket],
) -> list[Door]:
    telemetry, max_body = chat.telemetry, settings.server.max_body_bytes
    protocol = chat_protocol(
        chat.answer,
        on_refused=lambda status: telemetry.counted("", status),
        clock=time.time,
        max_body=max_body,
    )
    conversations = _conversations(settings, edges, chat)
    who = identified(edges.authenticator, time.time)
    public = public_app(
        conversations=ConversationRoutes(conversations, who, time.time, max_body=max_body),
        roster=edges.roster,
        authenticator=edges.authenticator,
        readiness=readiness,
        telemetry=telemetry,
        clock=time.time,
    )
    admin = admin_app(
        conversations=conversations,
        nodes=lambda: edges.roster.nodes,
        authenticator=edges.authenticator,
        readiness=readiness,
        telemetry=telemetry,
        clock=time.time,
    )
    public_port, admin_port = ports
    return [
        Door(public, public_port, drain_s=int(settings.server.drain_s), protocol=protocol),
        Door(admin, admin_port, drain_s=_ADMIN_DRAIN_S),
    ]


@contextlib.asynccontextmanager
async def _edges(settings: Settings, env: Mapping[str, str]) -> AsyncIterator[Edges]:
    """Open what the settings name, known and probed once; closed again at the end."""
    async with contextlib.AsyncExitStack() as stack:
        store = conversation_store(settings)
        stack.push_async_callback(store.close)
        archivist: Archivist | None = None
        if settings.archive.url:
            archive = conversation_archive(settings)
            archivist = Archivist(store, archive, settings.archive)
            store = with_archive(store, archive)
        await _warn_of_store(settings)
        authenticator: Everybody | Keyring = Everybody()
        if settings.auth.enabled:
            pepper = read_pepper(env, configured=settings.auth.pepper)
            authenticator = Keyring(await _key_store(settings, stack), pepper=pepper)
            await authenticator.load()
        roster = Roster(settings.nodes, settings.relay)
        stack.callback(roster.close)
        await roster.probe_all()
        recaller = Recaller(
            store.read, settings.history.rules.recall, settings.history.recall_cache, time.monotonic
        )
        stack.push_async_callback(recaller.close)
        yield Edges(store, archivist, recaller, roster, authenticator)


def conversation_store(settings: Settings) -> ConversationStore:
    """The store of dialogues that the settings name."""
    if settings.store.url == "memory":
        return MemoryStore()
    return RedisStore(
        settings.store.place,
        ttl_ms=int(settings.store.ttl_days * 86_400_000) or None,
        pool_size=settings.store.pool_size,
        timeout_s=settings.store.timeout_s,
        durability=settings.store.durability,
    )


def conversation_archive(settings: Settings) -> ObjectArchive:
    """The archive that the settings name. Raises `BadOption` if it cannot be used."""
    try:
        return ObjectArchive(settings.archive.url)
    except ValueError as error:
        raise BadOption(f"archive.url: {error}") from error


async def _warn_of_store(settings: Settings) -> None:
    """Say what the store is set to that could lose turns or evict conversations."""
    store = settings.store
    if store.url != "memory":
        for warning in await check_store(store.place, store.durability, timeout_s=store.timeout_s):
            log.warning(warning)


async def _key_store(settings: Settings, stack: contextlib.AsyncExitStack) -> RedisKeys:
    if settings.store.url == "memory":
        raise BadOption("API keys are kept in Redis: name one (--redis URL), or ask for no keys (--no-auth)")
    client = redis_client(settings.store.place, timeout_s=settings.store.timeout_s)
    return RedisKeys(await stack.enter_async_context(client))
