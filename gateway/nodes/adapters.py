"""LoRA adapters of one node: loaded, unloaded, and named as its engine wants them named.

Engines key cached prefixes by an adapter's name and path, not by its weights: files that were overwritten in
place go on being answered from the old ones' cache. So while an engine runs a name is used once.
"""

import msgspec

from gateway.nodes.asking import Answered, Asker
from gateway.nodes.dialect import DIALECTS, read_error
from gateway.nodes.errors import AdapterRefused
from gateway.routing.node import Node

_WITHIN_S = 120.0
"""A large adapter from a slow disk."""
_NAMES_KEPT = 10_000
_BY_OTHERS = "loaded by others"


class AdapterSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An adapter as an operator describes it."""

    name: str
    """What requests call it."""
    path: str
    """Where it lies on the node's own disk."""


class Adapters:
    """Those of one node."""

    def __init__(self, node: Node, asker: Asker) -> None:
        self._node = node
        self._asker = asker
        self._dialect = DIALECTS[node.spec.engine]
        self._used: dict[str, str] = {}
        """Names that were loaded here since the engine was met, and their paths; unloaded ones too."""

    async def load(self, spec: AdapterSpec, *, is_immutable: bool = False) -> None:
        """Load it. Raises `AdapterRefused` with what to change, or a `NodeFault` if the node is not well.

        `is_immutable`: what lies at its path is never written again, so it may come back later.
        """
        name, path = spec.name, spec.path
        if name in self._node.models:
            raise AdapterRefused(f"node {self._node.id} serves {name!r} already; give it another name")
        if name in self._used and not (is_immutable and self._used[name] in {path, _BY_OTHERS}):
            raise AdapterRefused(
                f"{name!r} was loaded on node {self._node.id} before ({self._used[name]}), and its cache may "
                "still answer for that: give every version a name and a path of its own"
            )
        try:
            await self._ask(self._dialect.load_adapter, {"lora_name": name, "lora_path": path})
        except AdapterRefused as refused:
            if path in str(refused):
                raise
            # vLLM says "<path>" where the path should stand.
            raise AdapterRefused(f"{refused} (it was asked for {path})", status=refused.status) from refused
        if len(self._used) < _NAMES_KEPT:
            self._used[name] = path

    async def unload(self, name: str) -> None:
        """Unload it: no request gets it from now on. Raises as `load` does."""
        if name not in self._node.parents:
            raise AdapterRefused(f"node {self._node.id} has no adapter {name!r}", status=404)
        self._used.setdefault(name, _BY_OTHERS)
        self._node.models -= {name}
        await self._ask(self._dialect.unload_adapter, {"lora_name": name})

    def forget(self) -> None:
        """It is a new engine, whose cache is empty."""
        self._used.clear()

    async def _ask(self, path: str, body: dict[str, str]) -> None:
        if not path:
            raise AdapterRefused(f"engine {self._node.spec.engine} cannot load adapters while it runs")
        try:
            await self._asker.post(path, msgspec.json.encode(body), within_s=_WITHIN_S)
        except Answered as fault:
            raise AdapterRefused(_advised(fault, self._node), status=_status(fault)) from fault


def served_name(node: Node, model: str) -> str:
    """What a node is to be asked for. SGLang answers a bare adapter's name with its base model and 200."""
    parent = node.parents.get(model) if node.spec.engine == "sglang" else None
    return model if parent is None else f"{parent}:{model}"


def _status(fault: Answered) -> int:
    return fault.status if 400 <= fault.status < 500 and fault.status != 401 else 400


def _advised(fault: Answered, node: Node) -> str:
    told = _told_by_sglang(fault.body) or read_error(fault.body).message
    if fault.status in {404, 405} and told in {"Not Found", "Method Not Allowed"}:
        flags = "with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
        if node.spec.engine == "sglang":
            flags = "with --enable-lora, --max-lora-rank and --lora-target-modules"
        return f"node {node.id} does not take adapters while it runs: start it {flags}"
    if fault.status == 500 and node.spec.engine == "sglang" and (node.facts.ranks or 1) > 1:
        return f"node {node.id} refuses: SGLang loads none at run time with several data-parallel ranks"
    return f"node {node.id}: {told}"


class _Report(msgspec.Struct, frozen=True):
    success: bool
    error_message: str = ""


def _told_by_sglang(body: bytes) -> str:
    """What SGLang says went wrong; empty for anything else."""
    try:
        return msgspec.json.decode(body, type=_Report).error_message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
