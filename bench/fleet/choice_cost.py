"""What choosing costs in microseconds of CPU, and the ledger in memory: the product's own code."""

import gc
import resource
import time
from collections.abc import Callable
from functools import partial

import msgspec

from gateway.routing.choice import Ask, RoutingRules
from gateway.routing.holdings import Placed, Sought
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.prefix import chain, root
from gateway.routing.router import Decision, Router

_NOW = 1e9
_MESSAGE = b'{"role":"user","content":"' + b"a" * 560 + b'"}'


class ChoiceCost(msgspec.Struct, frozen=True, kw_only=True):
    """The best of several rounds: what the code costs, not what the machine was doing."""

    nodes: int
    bound_us: float
    spread_us: float


class DialogueCost(msgspec.Struct, frozen=True, kw_only=True):
    """Per turn, by the number of messages in the prompt."""

    messages: int
    chain_us: float
    """The hash chain over the prompt."""
    held_us: float
    """The ledger asked for every link, as for a prompt that is not bound."""


class LedgerCost(msgspec.Struct, frozen=True, kw_only=True):
    """After so many placements of different prefixes."""

    placements: int
    entries: int
    bytes_per_entry: float
    note_us: float


def choices(sizes: tuple[int, ...] = (8, 16, 100, 1000), *, rounds: int = 7) -> list[ChoiceCost]:
    """All that routing does for a request: what who holds, the choice, its slot and its end.

    A bound conversation, and a new one whose persona lies on every node; every node has something under way.
    """
    found = []
    for size in sizes:
        router = _fleet(size)
        home = Placed(node="node-3", tokens=4900, at=_NOW)
        bound = Sought(links=(b"persona", b"turn"), head=(b"persona", 1000), home=home)
        new = Sought(links=(b"persona", b"new"), head=(b"persona", 1000))
        costs = [_routing(router, sought, size, rounds) for sought in (bound, new)]
        found.append(ChoiceCost(nodes=size, bound_us=costs[0], spread_us=costs[1]))
    return found


def dialogues(sizes: tuple[int, ...] = (2, 20, 80, 800), *, rounds: int = 7) -> list[DialogueCost]:
    """What grows with the dialogue."""
    ledger, start = Ledger(), root("m")
    router = Router({"node-1": _node(1)}, ledger, RoutingRules())
    found = []
    for size in sizes:
        messages = [_MESSAGE] * size
        links = chain(start, messages).links
        ledger.note(links[0], "node-1", 100, 0.0)
        found.append(
            DialogueCost(
                messages=size,
                chain_us=_us(partial(chain, start, messages), 100, rounds),
                held_us=_us(partial(router.held, Sought(links=links), "m", 0.0), 100, rounds),
            )
        )
    return found


def soak(placements: int = 1_000_000) -> LedgerCost:
    """Note so many different prefixes on 16 nodes."""
    gc.collect()
    before = _resident()
    ledger = Ledger()
    began = time.perf_counter()
    for number in range(placements):
        ledger.note(number.to_bytes(16, "big"), f"node-{number % 16}", number, float(number))
    noted = time.perf_counter()
    entries, grown = len(ledger), _resident() - before
    return LedgerCost(
        placements=placements,
        entries=entries,
        bytes_per_entry=grown / entries,
        note_us=(noted - began) / placements * 1e6,
    )


def _fleet(size: int) -> Router:
    ledger, nodes = Ledger(), {f"node-{index}": _node(index) for index in range(size)}
    router = Router(nodes, ledger, RoutingRules())
    for name in nodes:
        ledger.note(b"persona", name, 1000, _NOW)
    for number in range(2 * size):
        key = number.to_bytes(8, "big")
        router.route(Ask(model="m", key=key, prompt_tokens=5000), _NOW)
    return router


def _routing(router: Router, sought: Sought, size: int, rounds: int) -> float:
    bound_to = sought.home.node if sought.home else None
    places = [(sought.links[-1], 5000), sought.head]

    def one() -> None:
        held = router.held(sought, "m", _NOW)
        ask = Ask(
            model="m",
            key=b"k" * 16,
            prompt_tokens=5000,
            held=held,
            bound_to=bound_to,
            shared=1000,
            places=places,
        )
        decision = router.route(ask, _NOW)
        assert isinstance(decision, Decision)
        router.answered(decision, _NOW)
        router.release(decision, _NOW, was_computed=True)

    return _us(one, max(20, 4000 // size), rounds)


def _us(call: Callable[[], object], times: int, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            call()
        best = min(best, (time.process_time() - began) / times)
    return best * 1e6


def _node(index: int) -> Node:
    return Node(
        spec=NodeSpec(engine="vllm", url=f"http://node-{index}"),
        id=f"node-{index}",
        is_healthy=True,
        models=frozenset({"m"}),
        waiting=1,
        kv_usage=0.4,
    )


def _resident() -> int:
    """The most memory that this process had, in bytes; it only grows, which is what a cap has to stand."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
