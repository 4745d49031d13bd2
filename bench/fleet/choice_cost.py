"""What choosing costs in microseconds and the ledger in memory: real time, the product's own code."""

import gc
import resource
import time
from collections.abc import Callable
from functools import partial

import msgspec

from gateway.routing.choice import Ask, RoutingRules, choose
from gateway.routing.ledger import Ledger, Placement
from gateway.routing.node import Node, NodeSpec
from gateway.routing.prefix import chain, root
from gateway.routing.router import Router

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
    """`choose` alone, for a bound conversation and for one that is not."""
    found = []
    for size in sizes:
        nodes = tuple(_node(index) for index in range(size))
        asks = [
            Ask(model="m", key=b"k" * 16, prompt_tokens=5000, expected={"node-3": 4900}, bound_to="node-3"),
            Ask(model="m", key=b"k" * 16, prompt_tokens=5000, expected={}),
        ]
        bound, spread = (_choosing(ask, nodes, rounds) for ask in asks)
        found.append(ChoiceCost(nodes=size, bound_us=bound, spread_us=spread))
    return found


def dialogues(sizes: tuple[int, ...] = (2, 20, 80, 800), *, rounds: int = 7) -> list[DialogueCost]:
    """What grows with the dialogue."""
    ledger, start = Ledger(), root("m")
    router = Router({"node-1": _node(1)}, ledger, RoutingRules())
    found = []
    for size in sizes:
        messages = [_MESSAGE] * size
        links = chain(start, messages).links
        ledger.note(links[0], Placement(node="node-1", tokens=100, at=0.0))
        found.append(
            DialogueCost(
                messages=size,
                chain_us=_us(partial(chain, start, messages), 100, rounds),
                held_us=_us(partial(router.held, links, 0.0), 100, rounds),
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
        placement = Placement(node=f"node-{number % 16}", tokens=number, at=float(number))
        ledger.note(number.to_bytes(16, "big"), placement)
    noted = time.perf_counter()
    entries, grown = len(ledger), _resident() - before
    return LedgerCost(
        placements=placements,
        entries=entries,
        bytes_per_entry=grown / entries,
        note_us=(noted - began) / placements * 1e6,
    )


def _choosing(ask: Ask, nodes: tuple[Node, ...], rounds: int) -> float:
    rules = RoutingRules()
    return _us(lambda: choose(ask, nodes, rules), max(20, 4000 // len(nodes)), rounds)


def _us(call: Callable[[], object], times: int, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            call()
        best = min(best, (time.perf_counter() - began) / times)
    return best * 1e6


def _node(index: int) -> Node:
    return Node(
        spec=NodeSpec(engine="vllm", url=f"http://node-{index}"),
        id=f"node-{index}",
        is_healthy=True,
        models=frozenset({"m"}),
        running=index % 5,
        waiting=1,
        kv_usage=0.4,
    )


def _resident() -> int:
    """The most memory that this process had, in bytes; it only grows, which is what a cap has to stand."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
