"""Between turns: the memory is made by a call that continues the live prompt, the next prefix is warmed.

Over a stub node with a real block cache; every number is the node's own.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until

WINDOW = (
    *("--set", "history.rules.window.min_turns=3", "--set", "history.rules.window.max_turns=6"),
    *("--set", "history.rules.compaction={lead_turns: 1, max_tokens: 32}"),
)
PERSONA = {"role": "system", "content": "You are Luna, who keeps a lighthouse. " * 20}
numbers = itertools.count()


@pytest.fixture(scope="module")
def node() -> Iterator[Stub]:
    """A node with blocks of 16 tokens."""
    with running_stub(engine="vllm", context_length=32_768) as stub:
        yield stub


@pytest.fixture(scope="module")
def kept(node: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a small window."""
    with running_gateway(f"vllm={node.url}", options=("--model", "stub", *WINDOW)) as gateway:
        yield gateway


class Talk:
    """One conversation; `usages` as the node reports them."""

    def __init__(self, gateway: Gateway, **fields: Any) -> None:
        self.gateway = gateway
        self.conversation = f"talk-{next(numbers)}"
        self.fields = fields
        self.usages: list[dict[str, Any]] = []

    def say(self) -> None:
        turn = len(self.usages)
        user = {"role": "user", "content": f"Part {turn} of the story about the old ship and its captain."}
        body = {
            "model": "stub",
            "conversation": self.conversation,
            "messages": [user] if turn else [PERSONA, user],
            **self.fields,
        }
        answer = httpx.post(f"{self.gateway.url}/v1/chat/completions", json=body, timeout=30)
        answer.raise_for_status()
        self.usages.append(answer.json()["usage"])

    def uncached(self, turn: int) -> int:
        usage = self.usages[turn]
        return int(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])


def report(gateway: Gateway) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{gateway.admin_url}/admin/cache").json()
    return answer


def events(gateway: Gateway, name: str) -> int:
    return int(report(gateway)["events"].get(name, 0))


def play_to_the_cut(talk: Talk, *, turns: int = 8) -> None:
    """Turns with the pauses in which the background works: the eighth prompt is the first after the cut."""
    for _ in range(turns):
        made, warm = events(talk.gateway, "compaction_kept"), events(talk.gateway, "warm")
        talk.say()
        count = len(talk.usages)
        if count == 5:
            assert until(lambda made=made: events(talk.gateway, "compaction_kept") > made)
        if count == 7:
            assert until(lambda warm=warm: events(talk.gateway, "warm") > warm)


def test_the_first_turn_after_a_cut_is_as_warm_as_any_other(node: Stub, kept: Gateway) -> None:
    """The memory was made and the new prefix computed before the user spoke."""
    talk = Talk(kept)

    play_to_the_cut(talk)

    heads = [prompt[0]["content"] for prompt in node.prompts() if prompt[0]["role"] == "system"]
    assert talk.usages[7]["prompt_tokens"] < talk.usages[6]["prompt_tokens"]
    assert talk.uncached(7) <= 1.2 * talk.uncached(6) + 16
    assert "<memory>" in heads[-1]


def test_the_memory_call_is_a_cache_hit_with_the_same_frame(node: Stub, kept: Gateway) -> None:
    """Same tools, none to be called, a bounded answer; only the instruction at the end is new."""
    tools = [
        {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    ]
    talk = Talk(kept, tools=tools, temperature=0.9, stop=["never"])
    before = report(kept)["background"].get("compaction", {"cached_tokens": 0, "reusable_tokens": 0})

    play_to_the_cut(talk, turns=5)

    after = report(kept)["background"]["compaction"]
    cached, reusable = (after[name] - before[name] for name in ("cached_tokens", "reusable_tokens"))
    asked = next(
        request["body"]
        for request in reversed(node.stats()["recent"])
        if request["body"].get("tool_choice") == "none"
    )
    assert reusable > 400
    assert cached >= 0.9 * reusable
    assert asked["tools"] == tools
    assert asked["temperature"] == 0
    assert "stop" not in asked
    assert "Write at most" in asked["messages"][-1]["content"]


def test_background_calls_are_a_cost_and_no_part_of_the_hit_rate(kept: Gateway) -> None:
    """Users' tokens and ours are counted apart."""
    before = report(kept)
    talk = Talk(kept)

    play_to_the_cut(talk)

    after = report(kept)
    assert after["total"]["answers"] - before["total"]["answers"] == 8
    prompts = sum(usage["prompt_tokens"] for usage in talk.usages)
    assert after["total"]["prompt_tokens"] - before["total"]["prompt_tokens"] == prompts
    assert after["background"]["warm"]["answers"] > 0
    metrics = httpx.get(f"{kept.admin_url}/metrics").text
    assert 'friendo_background_prompt_tokens_total{purpose="compaction"}' in metrics


def test_a_model_that_fails_at_it_costs_the_user_nothing(node: Stub, kept: Gateway) -> None:
    """Nothing is lost and nobody waits: the window grows until a memory can be made."""
    talk = Talk(kept)
    for _ in range(4):
        talk.say()
    failed = events(kept, "upkeep_failed")
    node.set_faults({"kind": "status", "status": 500, "text": "Write at most"})
    try:
        for _ in range(4):
            talk.say()
        assert until(lambda: events(kept, "upkeep_failed") > failed)
    finally:
        node.set_faults()
    assert talk.usages[7]["prompt_tokens"] > talk.usages[6]["prompt_tokens"]


def test_conversations_of_a_lost_node_are_warm_elsewhere_before_their_next_message() -> None:
    """The newest first, on the node that is left; their turn then finds its prefix there."""
    with running_stub(engine="vllm") as one, running_stub(engine="vllm") as other:
        nodes = {stub.url.removeprefix("http://"): stub for stub in (one, other)}
        with running_gateway(*(f"vllm={stub.url}" for stub in (one, other))) as gateway:
            talk = Talk(gateway)
            for _ in range(3):
                talk.say()
            held = next(node for node in nodes.values() if node.prompts())
            left = next(node for node in nodes.values() if node is not held)
            assert left.prompts() == []
            held.kill()

            assert until(lambda: bool(left.prompts()), within_s=20)
            assert until(lambda: events(gateway, "warm") == 1)
            talk.say()

    assert talk.uncached(3) <= talk.uncached(2) + 16
