"""The composition root of the gateway process: the only place where doors and edges are put together."""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis, RedisCluster

from gateway.api.admin import admin_app
from gateway.api.chat_protocol import chat_protocol
from gateway.api.conversations import ConversationRoutes
from gateway.api.health import Readiness
from gateway.api.public import identified, public_app
from gateway.background import Background
from gateway.chat import Chat
from gateway.clock import Clock
from gateway.config_file.places import prompts_folder
from gateway.config_file.prompts import read_instructions
from gateway.conversations import Conversations
from gateway.counting import counting
from gateway.dispatch import Dispatcher
from gateway.embedder import NodeEmbedder
from gateway.errors import BadOption
from gateway.fine_tuning import Training
from gateway.garbage import settle_down
from gateway.keys.everybody import Everybody
from gateway.keys.keyring import Keyring
from gateway.keys.pepper import read_pepper
from gateway.keys.redis_keys import RedisKeys
from gateway.nodes.dns_finder import DnsFinder
from gateway.nodes.kube_finder import KubeFinder
from gateway.nodes.membership import Membership
from gateway.nodes.memory_roster import MemoryRoster
from gateway.nodes.redis_roster import RedisRoster
from gateway.nodes.roster import Roster
from gateway.residency import NodeResidency
from gateway.rollout.memory_rollouts import MemoryRollouts
from gateway.rollout.redis_rollouts import RedisRollouts
from gateway.rollout.rollouts import Rollouts, rollouts_over
from gateway.rollout.versions import Versions
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node
from gateway.routing.router import Router
from gateway.server import Door, listen, serve_until_signal, url_of
from gateway.settings import Settings
from gateway.telemetry import Telemetry
from gateway.training_edges import open_training
from gateway.upkeep import Upkeep
from gateway.waiting_room import WaitingRoom
from history.allowance import Allowance
from history.archived_store import with_archive
from history.archivist import Archivist
from history.compactor import Compactor
from history.dialogue import Dialogues
from history.editing import Editor
from history.embedding import Embedding
from history.errors import StoreFault
from history.forking import Forks
from history.lease_keeper import LeaseKeeper
from history.memory_store import MemoryStore
from history.object_archive import ObjectArchive
from history.ports import Archive, ConversationStore
from history.recall import RecallRule
from history.recaller import Meaning, Recaller
from history.redis_check import check_store
from history.redis_client import redis_client
from history.redis_store import RedisStore
from history.sweeper import Sweeper

log = structlog.get_logger()

_ADMIN_DRAIN_S = 1
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the gateway can be reached once it accepts requests."""

    url: str
    admin_url: str


@dataclass(frozen=True, slots=True)
class Edges:
    """What touches the outside world, open."""

    store: ConversationStore
    allowance: Allowance
    archivist: Archivist | None
    sweeper: Sweeper
    recaller: Recaller
    roster: Roster
    membership: Membership
    rollouts: Rollouts
    authenticator: Everybody | Keyring
    training: Training


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
            tasks.create_task(edges.membership.run()),
            tasks.create_task(edges.rollouts.run()),
            tasks.create_task(chat.upkeep.run()),
        ]
        background += [tasks.create_task(task) for task in counting(settings, edges.allowance, edges.sweeper)]
        if isinstance(edges.authenticator, Keyring):
            background.append(tasks.create_task(edges.authenticator.run()))

        def up() -> None:
            settle_down()
            on_ready(Listening(url=url_of(public_port), admin_url=url_of(admin_port)))

        def drain() -> None:
            # Readiness first: a balancer that asks between now and the closed port is told.
            readiness.is_draining = True

        await serve_until_signal(
            _doors(settings, edges, chat, readiness, (public_port, admin_port)),
            on_up=up,
            on_stop=drain,
        )
        for task in background:
            task.cancel()
        if settings.history.limits.counts_tenants:
            with contextlib.suppress(StoreFault):  # the next sweep counts what is not told now
                await edges.allowance.settle()


def _chat(settings: Settings, edges: Edges, keeper: LeaseKeeper) -> Chat:
    """The use case, with all that it calls."""
    telemetry, rules, clock = Telemetry(), settings.history.rules, Clock()
    router = Router(edges.roster.by_id, Ledger(), settings.routing)
    room = WaitingRoom(router, settings.routing, telemetry, clock.steady)
    edges.roster.on_probed, edges.roster.on_removed = _probed(router, room, clock), telemetry.removed
    telemetry.queue_length = room.__len__
    dispatcher = Dispatcher(edges.roster, router, room, telemetry, clock.steady, settings.relay)
    versions = Versions(edges.rollouts.board, router)
    dispatcher.on_failed = versions.failed
    dialogues = Dialogues(
        edges.store,
        keeper,
        rules,
        time.time,
        residency=NodeResidency(router, clock),
        recaller=edges.recaller,
        allowance=edges.allowance,
    )
    upkeep = _upkeep(
        settings, edges, dialogues, Background(dispatcher, router, telemetry, clock, versions), room
    )
    edges.rollouts.board.on_changed = lambda record: upkeep.moved(record.alias)
    return Chat(
        authenticator=edges.authenticator,
        dialogues=dialogues,
        dispatcher=dispatcher,
        router=router,
        telemetry=telemetry,
        upkeep=upkeep,
        versions=versions,
        history=settings.history,
        clock=clock,
        replica=secrets.token_hex(8),
    )


def _upkeep(
    settings: Settings, edges: Edges, dialogues: Dialogues, background: Background, room: WaitingRoom
) -> Upkeep:
    """What is done between turns."""
    rules, router, telemetry, clock = (
        settings.history.rules,
        background.router,
        background.telemetry,
        background.clock,
    )
    meaning = rules.recall.meaning
    embedder = NodeEmbedder(edges.roster, router, room, telemetry, clock.steady, meaning)
    return Upkeep(
        dialogues=dialogues,
        compactor=Compactor(edges.store, rules, read_instructions(prompts_folder()), time.time),
        background=background,
        archivist=edges.archivist,
        embedding=_embedding(edges, rules.recall, embedder),
        rules=settings.history.upkeep,
        compaction=rules.compaction,
    )


def _embedding(edges: Edges, rule: RecallRule, embedder: NodeEmbedder) -> Embedding | None:
    """Recall by meaning, where a model for it is named."""
    if not rule.enabled or not rule.meaning.model:
        return None
    edges.recaller.meaning = Meaning(embedder=embedder, read=edges.store.vectors)
    return Embedding(edges.store, embedder, rule, edges.recaller.embedded)


def _probed(router: Router, room: WaitingRoom, clock: Clock) -> Callable[[Node], None]:
    """What becomes of a node's news: its price changes, and it may have room."""

    def told(node: Node) -> None:
        router.polled(node, clock.steady())
        room.look(node)

    return told


def _conversations(settings: Settings, edges: Edges, chat: Chat) -> Conversations:
    """What is done with dialogues beside talking, over what the chat use case has."""
    store, rules = edges.store, settings.history.rules
    editor = Editor(chat.dialogues, store, rules, time.time, lambda: f"{chat.replica}-{next(chat.numbers)}")
    return Conversations(
        store=store,
        editor=editor,
        forks=Forks(editor, store),
        upkeep=chat.upkeep,
        new_id=lambda: f"conv_{secrets.token_hex(16)}",
        forget=edges.recaller.forget,
        rated=chat.versions.rated,
    )


def _doors(
    settings: Settings,
    edges: Edges,
    chat: Chat,
    readiness: Readiness,
    ports: tuple[socket.socket, socket.socket],
) -> list[Door]:
    telemetry, max_body = chat.telemetry, settings.server.max_body_bytes
    refused: Callable[[int], None] = lambda status: telemetry.counted("", status)  # noqa: E731
    protocol = chat_protocol(chat.answer, on_refused=refused, clock=chat.clock.steady, max_body=max_body)
    conversations = _conversations(settings, edges, chat)
    who = identified(edges.authenticator, chat.clock)
    public = public_app(
        conversations=ConversationRoutes(conversations, who, time.time, max_body=max_body),
        training=edges.training,
        roster=edges.roster,
        rollouts=edges.rollouts.board,
        authenticator=edges.authenticator,
        readiness=readiness,
        telemetry=telemetry,
        clock=chat.clock,
    )
    admin = admin_app(
        conversations=conversations,
        membership=edges.membership,
        training=edges.training,
        rollouts=edges.rollouts.desk,
        authenticator=edges.authenticator,
        readiness=readiness,
        telemetry=telemetry,
        growth=chat.dialogues.growth,
        clock=chat.clock,
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
        archive: Archive | None = None
        if settings.archive.url:
            archive = conversation_archive(settings)
            archivist = Archivist(store, archive, settings.archive)
            store = with_archive(store, archive)
        await _warn_of_store(settings)
        client = await _client(settings, stack)
        authenticator: Everybody | Keyring = Everybody()
        if settings.auth.enabled:
            pepper = read_pepper(env, configured=settings.auth.pepper)
            authenticator = Keyring(_key_store(client), pepper=pepper, isolates=settings.auth.isolate_cache)
            await authenticator.load()
        roster = Roster(settings.nodes, settings.relay, settings.roster)
        stack.callback(roster.close)
        membership = _membership(settings, roster, client)
        await membership.load()
        rollouts = await _rollouts(settings, membership, client)
        await roster.probe_all()
        recaller = Recaller(
            store.read, settings.history.rules.recall, settings.history.recall_cache, time.monotonic
        )
        stack.push_async_callback(recaller.close)
        yield Edges(
            store=store,
            allowance=Allowance(store, settings.history.limits),
            archivist=archivist,
            sweeper=store_sweeper(settings, store, archive, counts=settings.history.limits.counts_tenants),
            recaller=recaller,
            roster=roster,
            membership=membership,
            rollouts=rollouts,
            authenticator=authenticator,
            training=await open_training(settings, client, stack),
        )


async def _rollouts(
    settings: Settings, membership: Membership, client: Redis | RedisCluster | None
) -> Rollouts:
    kept = MemoryRollouts() if client is None else RedisRollouts(client)
    found = rollouts_over(kept, membership, settings.rollout, Clock(), replica=secrets.token_hex(8))
    await found.board.load()
    return found


def conversation_store(settings: Settings) -> ConversationStore:
    """The store of dialogues that the settings name."""
    ttl_ms = int(settings.store.ttl_days * _DAY_MS) or None
    if settings.store.url == "memory":
        return MemoryStore(ttl_ms=ttl_ms, limits=settings.history.limits)
    return RedisStore(
        settings.store.place,
        ttl_ms=ttl_ms,
        limits=settings.history.limits,
        pool_size=settings.store.pool_size,
        timeout_s=settings.store.timeout_s,
        durability=settings.store.durability,
        window_bytes=settings.store.window_bytes,
    )


def store_sweeper(
    settings: Settings, store: ConversationStore, archive: Archive | None, *, counts: bool
) -> Sweeper:
    """What looks after expired conversations, as the settings want it."""
    keep_s = settings.archive.keep_days * _DAY_MS / 1000
    return Sweeper(store, archive, keep_s=keep_s, counts=counts, clock=time.time)


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


async def _client(settings: Settings, stack: contextlib.AsyncExitStack) -> Redis | RedisCluster | None:
    """A client for what is asked now and then; None where everything is in memory."""
    if settings.store.url == "memory":
        return None
    client = redis_client(settings.store.place, timeout_s=settings.store.timeout_s)
    return await stack.enter_async_context(client)


def _key_store(client: Redis | RedisCluster | None) -> RedisKeys:
    if client is None:
        raise BadOption("API keys are kept in Redis: name one (--redis URL), or ask for no keys (--no-auth)")
    return RedisKeys(client)


def _membership(settings: Settings, roster: Roster, client: Redis | RedisCluster | None) -> Membership:
    """Who has a say in the roster."""
    store = MemoryRoster() if client is None else RedisRoster(client)
    finders = [DnsFinder(one) if one.dns else KubeFinder(one) for one in settings.discovery]
    return Membership(roster, store, settings.nodes, finders)
