"""What choosing and counting a version adds to a request: `python -m bench.version_choice`.

Microseconds of this process per call, the best of five rounds, over eight nodes that serve everything.
"""

import timeit
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from gateway.moment import Moment
from gateway.nodes.usage import Usage
from gateway.request import read_request
from gateway.rollout.board import Board
from gateway.rollout.memory_rollouts import MemoryRollouts
from gateway.rollout.record import Rollout, Trial, Version
from gateway.rollout.verdict import Rule
from gateway.rollout.versions import Versions
from gateway.routing.choice import RoutingRules
from gateway.routing.ledger import Ledger
from gateway.routing.node import Node, NodeSpec
from gateway.routing.router import Router
from history.conversation import Binding, Conversation, ConversationKey

NODES = 8
CALLS = 20_000
ROUNDS = 5
NOW = Moment(steady=2.0, wall=2.0)


def main() -> None:
    """Print a line for each case."""
    versions, plain, asked = _versions(), _request("base"), _request("luna")
    known = msgspec.structs.replace(asked, version="luna--1")
    begins = _turn(Conversation())
    goes_on = _turn(Conversation(turn_count=4, binding=Binding("n1", b"link", 100, 1.0, version="luna--1")))
    usage = Usage(prompt_tokens=10, completion_tokens=5, cached=3)
    cases: dict[str, Callable[[], object]] = {
        "no alias": lambda: versions.of_turn(plain, begins, NOW),
        "a conversation that begins": lambda: versions.of_turn(asked, begins, NOW),
        "one that goes on": lambda: versions.of_turn(asked, goes_on, NOW),
        "counting its answer": lambda: versions.answered(known, usage, 0.2),
    }
    for name, call in cases.items():
        seconds = min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS
        print(f"{name}: {seconds * 1e6:.2f} µs")


def _versions() -> Versions:
    models = frozenset({"base", "luna--1", "luna--2"})
    nodes = {
        name: Node(spec=NodeSpec("vllm", f"http://{name}"), id=name, is_healthy=True, models=models)
        for name in (f"n{number}" for number in range(NODES))
    }
    board = Board(MemoryRollouts())
    trial = Trial(1, Version("luna--2"), "sharing", (0.25, 1.0), Rule())
    board.records = {"luna": Rollout("luna", Version("luna--1"), trial=trial, trials=1)}
    return Versions(board, Router(nodes, Ledger(), RoutingRules()))


def _request(model: str) -> Any:
    body = {"model": model, "conversation": "c", "messages": [{"role": "user", "content": "hi"}]}
    return read_request(msgspec.json.encode(body), {}, adopt_cache_key=False)


def _turn(conversation: Conversation) -> Any:
    """As much of an open turn as is looked at."""
    layout = SimpleNamespace(conversation=conversation, replaces=None, turns=())
    return SimpleNamespace(key=ConversationKey("tenant", "dialogue"), layout=layout)


if __name__ == "__main__":
    main()
