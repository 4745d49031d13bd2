"""One node as this replica keeps it: its connections, what its engine is, and what its cache does."""

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog
import zmq.asyncio

from gateway.errors import NodeFault
from gateway.nodes.acquaintance import is_worth_trying, meet, running_context, try_out
from gateway.nodes.adapters import Adapters, AdapterSpec
from gateway.nodes.asking import Asker
from gateway.nodes.connection import NodePool, Patience
from gateway.nodes.engine_facts import lacking
from gateway.nodes.engine_run import UNTOLD, EngineRun
from gateway.nodes.errors import AdapterRefused
from gateway.nodes.kv_feed import KvFeed
from gateway.nodes.polling import Poller
from gateway.nodes.request_head import own_headers
from gateway.nodes.shortfall_notes import shortfall_notes
from gateway.nodes.template_facts import render_some, template_notes
from gateway.routing.kv_source import KvSource
from gateway.routing.node import EngineFacts, Node

_MEETINGS_APART = 150
"""Polls. Settings change with a restart only, but an answer may have been missed."""
_NOTES_TOLD = 16

log = structlog.get_logger()


class NodeWatch:
    """Keeps one node. Whoever owns it says when to look; `Roster` does."""

    def __init__(
        self,
        node: Node,
        patience: Patience,
        *,
        may_try: bool = True,
        run: EngineRun = UNTOLD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node = node
        self.pool = NodePool(node.spec.url, patience, headers=own_headers(node.spec))
        self.feed: KvFeed | None = None
        self.has_answered = False
        """Whether it answered a request since it was met."""
        self._asker = Asker(node.spec)
        self._poller = Poller(node, self._asker, run)
        self._adapters = Adapters(node, self._asker)
        self._may_try = may_try
        self._is_met = False
        self._is_tried = False
        self._clock = clock
        self._feeding: asyncio.Task[None] | None = None
        self._until_meeting = 0
        self._restarts = 0
        """Those that its events had told of at the last poll."""
        self._told: set[str] = set()

    @property
    def tried(self) -> str:
        """What was asked last, for operators."""
        return f"GET {self.node.spec.url.rstrip('/')}{self._poller.tried}"

    @property
    def run(self) -> EngineRun:
        """How far its engine's run had come when it told last."""
        return self._poller.run

    @property
    def _source(self) -> KvSource | None:
        """Where its events are now."""
        return self.node.facts.kv_source or self.node.spec.kv_events

    async def look(self) -> None:
        """Ask the node how it is. Raises a `NodeFault` if it is not well."""
        if await self._poller.poll():
            self.has_restarted()
        self._restarts = self.feed.counts.restarts if self.feed else 0

    async def know(self, *, is_new: bool) -> None:
        """Learn what its engine is and is set to; `is_new`: it was away, and may be another one."""
        if is_new:
            self._forget()
            self._told.clear()
        if self._until_meeting == 0:
            self._until_meeting = _MEETINGS_APART
            found = await meet(self._asker, self.node)
            template = await render_some(self._asker, found, self._poller.model)
            self._learn(msgspec.structs.replace(found, template=template))
        self._until_meeting -= 1
        if self.node.facts.product == "Ollama" and self.node.facts.context is None:
            context = await running_context(self._asker, self.node.models)
            self._learn(msgspec.structs.replace(self.node.facts, context=context))
        self.note()

    def has_restarted(self) -> None:
        """It says so, or must have. Its events say it, too, and when, once they have something to tell.

        vLLM publishes with a batch only: a node that came back and is asked nothing is silent.
        """
        self._forget()
        self.node.truth.forget()
        feed = self.feed
        if feed is None or not feed.is_linked or feed.counts.restarts == self._restarts:
            self.node.retention.emptied(self._clock())

    def start(self, tasks: asyncio.TaskGroup, context: zmq.asyncio.Context) -> None:
        """Begin what is due: following its events where they are now, and trying it out."""
        if self._source != (self.feed.source if self.feed else None):
            self._follow(self._source, tasks, context)
        if self.node.is_healthy and self._may_try and not self._is_tried:
            self._is_tried = True
            if self._poller.model and is_worth_trying(self.node):
                tasks.create_task(self._try_out(self._poller.model))

    async def load_adapter(self, spec: AdapterSpec, *, is_immutable: bool = False) -> None:
        """Load a LoRA adapter there and serve it. Raises as `Adapters.load` does."""
        try:
            await self._adapters.load(spec, is_immutable=is_immutable)
        except AdapterRefused:
            # Somebody else may have loaded it meanwhile, and what its path holds is the same for ever.
            await self._poller.ask_models()
            if not is_immutable or spec.name not in self.node.parents:
                raise
        else:
            await self._poller.ask_models()

    async def unload_adapter(self, name: str) -> None:
        """Serve it no longer and unload it. Raises as `Adapters.unload` does."""
        await self._adapters.unload(name)
        await self._poller.ask_models()

    async def ask(self, path: str, body: bytes, *, within_s: float) -> bytes:
        """What it answers to a request of ours, apart from all traffic. Raises a `NodeFault`."""
        return await self._asker.post(path, body, within_s=within_s)

    def note(self) -> None:
        """Say what it lacks: in its facts, and once in the log."""
        feed, events = self.feed, tuple[str, ...]()
        if feed is not None and feed.source == self._source and self.node.is_healthy:
            events = feed.notes(has_answered=self.has_answered)
        facts = self.node.facts
        self.node.notes = (
            *lacking(facts, self.node.spec),
            *template_notes(facts.template),
            *shortfall_notes(self.node),
            *events,
        )
        for note in self.node.notes:
            if note not in self._told and len(self._told) < _NOTES_TOLD:
                self._told.add(note)
                log.warning("node lacks something", node=self.node.id, note=note)

    def close(self) -> None:
        """Drop the connections that are idle."""
        self.pool.close()
        self._asker.close()

    def _follow(
        self, source: KvSource | None, tasks: asyncio.TaskGroup, context: zmq.asyncio.Context
    ) -> None:
        """Follow another source of events, or none any more."""
        if self._feeding is not None:
            self._feeding.cancel()
            self.node.retention.doubt(self._clock())
        self.feed, self._feeding = None, None
        if source is not None:
            self.feed = KvFeed(self.node.id, source, self.node.retention, context=context, clock=self._clock)
            self._feeding = tasks.create_task(self.feed.run())

    def _forget(self) -> None:
        """It may be another engine now, or the same one with other settings."""
        self._until_meeting = 0
        self._adapters.forget()
        self._is_met = self._is_tried = self.has_answered = False

    def _learn(self, found: EngineFacts) -> None:
        """Take what was found; of one and the same engine, what was not found this time stays known."""
        node = self.node
        if self._is_met:
            reports, takes = node.facts.reports_cached, node.facts.takes_priority
            found = msgspec.structs.replace(
                found,
                reports_cached=reports if found.reports_cached is None else found.reports_cached,
                takes_priority=takes if found.takes_priority is None else found.takes_priority,
                kv_source=found.kv_source or node.facts.kv_source,
            )
        node.facts, self._is_met = found, True
        node.block_size = found.block_size or node.block_size
        if found.context:
            node.max_context = min(node.max_context or found.context, found.context)

    async def _try_out(self, model: str) -> None:
        try:
            self.node.facts = await try_out(self._asker, self.node, model)
        except NodeFault as fault:
            log.info("node could not be tried out", node=self.node.id, problem=str(fault))
        else:
            self.note()
