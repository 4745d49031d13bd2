"""How one node is, as it says when it is asked. It may answer anything: numbers that cannot be are unknown.

Polled at most every two seconds: llama.cpp answers its metrics between batches.
"""

import asyncio

from gateway.errors import NodeBroke, NodeFault, NodeRefused
from gateway.nodes.asking import Answered, Asker, OtherModels
from gateway.nodes.dialect import DIALECTS
from gateway.nodes.engine_metrics import Load, read_load, read_loads
from gateway.nodes.engine_run import UNTOLD, EngineRun
from gateway.nodes.model_list import listed, read_models
from gateway.routing.node import Node

MAX_METRICS = 1024 * 1024
"""Several times what engines send; they are searched on the event loop."""


class Poller:
    """Asks one node and notes in it what it says."""

    def __init__(self, node: Node, asker: Asker, run: EngineRun = UNTOLD) -> None:
        self.tried = ""
        """The path asked last."""
        self.model = ""
        """What the node lists first of what it is to serve."""
        self.run = run
        """What its engine told last, a node's before this one included that had its name and address."""
        self._was_down = False
        self._node = node
        self._asker = asker
        self._dialect = DIALECTS[node.spec.engine]
        self._health = self._dialect.health[0]
        self._loads = self._dialect.loads

    async def poll(self) -> bool:
        """Ask how it is and what it serves; whether it has restarted.

        Raises a `NodeFault` if it is not well.
        """
        node = self._node
        try:
            await self._ask_health()
        except NodeRefused:
            self._was_down = True
            raise
        await self.ask_models()
        metrics, now = await asyncio.gather(self._metrics(), self._load_now())
        load = read_load(metrics, self._dialect, node.spec.rank)
        self._learn_load(load, now)
        return self._is_another(EngineRun(load.prompt_tokens, load.started_at))

    async def ask_models(self) -> None:
        """Ask what it serves. Raises a `NodeFault`, also where it does not serve what it is said to."""
        self._learn_models(await self._ask("/v1/models"))

    async def _ask_health(self) -> None:
        """On the path that answered last; versions of an engine know one or the other."""
        try:
            await self._ask(self._health)
        except Answered as fault:
            others = [path for path in self._dialect.health if path != self._health]
            if fault.status != 404 or not others:
                raise
            try:
                await self._asker.get(others[0])
            except NodeFault:
                raise fault from None
            self._health = others[0]

    async def _ask(self, path: str) -> bytes:
        self.tried = path
        return await self._asker.get(path)

    def _learn_models(self, body: bytes) -> None:
        node = self._node
        try:
            models = read_models(body)
        except ValueError as error:
            raise NodeBroke(f"/v1/models is no model list: {error}") from error
        names = frozenset(model.id for model in models)
        wanted = frozenset(node.spec.models)
        parents = {model.id: model.parent for model in models if isinstance(model.parent, str)}
        adapters = {name for name, parent in parents.items() if not wanted or parent in wanted}
        node.parents = {name: parents[name] for name in adapters}
        node.roots = {model.id: model.root for model in models if isinstance(model.root, str)}
        node.models = (wanted & names) | adapters if wanted else names
        if missing := wanted - names:
            raise OtherModels(f"it does not serve {listed(missing)}; it serves {listed(names) or 'nothing'}")
        self.model = next((model.id for model in models if model.id in node.models), "")
        told = max((model.context() for model in models), default=0)
        real = node.facts.context or told
        node.max_context = min(told or real, real) or None

    async def _metrics(self) -> bytes:
        """Welcome, not required: without them the load is unknown, the node not away."""
        try:
            return await self._asker.get("/metrics", MAX_METRICS)
        except NodeFault:
            return b""

    async def _load_now(self) -> Load | None:
        if not self._loads:
            return None
        try:
            return read_loads(await self._asker.get(self._loads), self._node.spec.rank)
        except Answered as fault:
            if fault.status == 404:  # an older version
                self._loads = ""
        except NodeFault:
            pass  # what the metrics say has to do
        return None

    def _learn_load(self, metrics: Load, now: Load | None) -> None:
        node, load = self._node, now or metrics
        node.waiting, node.working, node.kv_usage = load.waiting, load.working, load.kv_usage
        node.progress = metrics.progress
        node.block_size = metrics.block_size or node.block_size

    def _is_another(self, told: EngineRun) -> bool:
        """By what its metrics tell; of an engine without any, by nobody having listened there meanwhile."""
        was_down, self._was_down = self._was_down, False
        if self.run.is_another(told):
            self.run = told
            return True
        self.run = self.run.then(told)
        return was_down and not self.run.is_known
