"""Vectors of texts, from the nodes that serve a model under `/v1/embeddings`.

Chosen as for a chat, by the same router and under the same caps. A question has a deadline and never waits in
line: without its vector a message is recalled by words. What fails here is counted and says nothing of a
node's chats, so no breaker opens.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog
import xxhash

from gateway.errors import GatewayError, NodeBroke, NodeFault
from gateway.nodes import relay
from gateway.nodes.body import BodySink
from gateway.nodes.connection import NodePool
from gateway.nodes.roster import Roster
from gateway.routing.choice import Ask
from gateway.routing.router import Decision, Router
from gateway.telemetry import Telemetry
from gateway.waiting_room import WaitingRoom
from history.meaning import MeaningRule, read_embeddings

_MAX_ANSWER = 16 * 1024 * 1024
_BYTES_PER_TOKEN = 4
_QUESTION_CHARS = 1_000
_TURNS_WITHIN_S = 30.0
_PATH = "/v1/embeddings"

log = structlog.get_logger()


class NodeEmbedder:
    """An `Embedder` over the roster's nodes."""

    def __init__(
        self,
        roster: Roster,
        router: Router,
        room: WaitingRoom,
        telemetry: Telemetry,
        clock: Callable[[], float],
        rule: MeaningRule,
    ) -> None:
        self._roster = roster
        self._router = router
        self._room = room
        self._events = telemetry.events
        self._clock = clock
        self._rule = rule

    async def of_question(self, text: str) -> list[float] | None:
        """The vector of what a message asks; None, and counted, if there is none in time."""
        texts = [self._rule.query_prefix + text[:_QUESTION_CHARS]]
        decision = self._router.route(self._ask(texts), self._clock())
        if not isinstance(decision, Decision):
            self._events["question_without_node"] += 1
            return None
        try:
            async with asyncio.timeout(self._rule.wait_s):
                return (await self._embedded(decision, texts))[0]
        except TimeoutError:
            self._events["question_late"] += 1
        except GatewayError as fault:
            self._events["question_failed"] += 1
            log.warning("no vector of a question", node=decision.node, fault=type(fault).__name__)
        return None

    async def of_turns(self, texts: Sequence[str]) -> Sequence[list[float]]:
        """The vectors of texts that nobody waits for. Raises a `GatewayError` where no node gives them."""
        decision = await self._room.admit(self._ask(texts), is_background=True)
        try:
            async with asyncio.timeout(_TURNS_WITHIN_S):
                return await self._embedded(decision, texts)
        except TimeoutError:
            raise NodeBroke(f"no vectors within {_TURNS_WITHIN_S:g} s") from None

    async def _embedded(self, decision: Decision, texts: Sequence[str]) -> list[list[float]]:
        """The answer of a node on which a slot is reserved; it is free again afterwards."""
        try:
            node = self._router.node(decision.node)
            body = msgspec.json.encode(
                {"model": self._rule.model, "input": texts, "encoding_format": "float"}
            )
            answer = await self._asked(self._roster.pool(node.id), node.spec.api_key, body)
            try:
                return read_embeddings(answer, len(texts))
            except ValueError as error:
                raise NodeBroke(str(error)) from error
        finally:
            self._router.release(decision, self._clock(), was_computed=False)
            self._room.freed(decision.node)

    async def _asked(self, pool: NodePool, api_key: str, body: bytes) -> bytes:
        exchange, head = await relay.send(pool, api_key, (), body, path=_PATH)
        try:
            if head.status != 200:
                raise NodeFault(f"{_PATH} answered {head.status}")
            sink = BodySink(limit=_MAX_ANSWER)
            exchange.pump(sink)
            await exchange.done
            return sink.value()
        finally:
            exchange.abort()

    def _ask(self, texts: Sequence[str]) -> Ask:
        return Ask(
            model=self._rule.model,
            key=xxhash.xxh3_128_digest(texts[0].encode("utf-8", "surrogatepass")),
            prompt_tokens=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
            // _BYTES_PER_TOKEN,
            tells=False,
        )
