"""What SGLang says in its own way comes out of the gateway in OpenAI's."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from bench.engines.launch import MODEL_NAME
from bench.engines.node import EngineNode
from tests.engines.asking import Said, ask, asked_until
from tests.engines.lender import Lender
from tests.engines.test_kv_events import SMALL
from tests.gateway_process import Gateway, running_gateway

pytestmark = pytest.mark.parametrize("engine", ["sglang"], indirect=True)
ENVELOPE = {"message", "type", "param", "code"}


@pytest.fixture
def node(engine: str, lender: Lender) -> EngineNode:
    """One that computes one request and lets another one wait."""
    return lender.lend(SMALL[engine])[0]


@pytest.fixture
def gateway(node: EngineNode) -> Iterator[Gateway]:
    """In front of it."""
    with running_gateway(f"sglang={node.url}") as running:
        yield running


def filled(node: EngineNode, pool: ThreadPoolExecutor) -> list[Future[Said]]:
    """One request is computed for some seconds, another one waits: there is no room for a third."""
    busy = []
    for name, load in (("Luna", (1, 0)), ("Nova", (1, 1))):
        text = f"Tell a story of {name}."
        busy.append(pool.submit(ask, node.url, text, stream=True, max_tokens=150, min_tokens=150))
        assert asked_until(lambda wanted=load: loads(node) == wanted, within_s=60)
    return busy


def loads(node: EngineNode) -> tuple[int, int]:
    """Requests that are computed, and that wait."""
    told = (
        httpx.get(f"{node.url}/v1/loads", timeout=30, trust_env=False).raise_for_status().json()["loads"][0]
    )
    return told["num_running_reqs"], told["num_waiting_reqs"]


def test_an_unknown_model_is_404_here_and_200_there(node: EngineNode, gateway: Gateway) -> None:
    """SGLang does not look at the name."""
    assert 200 == ask(node.url, "Hello", model="nosuch").status
    said = ask(gateway.url, "Hello", model="nosuch")
    assert (404, "model_not_found") == (said.status, said.error["code"])


def test_flat_errors_come_in_an_envelope(node: EngineNode, gateway: Gateway) -> None:
    """Whose fault it is stays what it was."""
    long = "The harbour is full of boats. " * 300
    assert {} == ask(node.url, long).error
    said = ask(gateway.url, long)
    assert (400, "context_length_exceeded") == (said.status, said.error["code"])
    assert ENVELOPE == set(said.error)
    odd = ask(gateway.url, "Hello", temperature=-5)
    assert 400 == odd.status
    assert ENVELOPE == set(odd.error)


@pytest.mark.parametrize("stream", [True, False])
def test_a_full_queue_is_load_before_the_first_byte(node: EngineNode, gateway: Gateway, stream: bool) -> None:
    """Streaming, SGLang says it with status 200 and an error as first event."""
    with ThreadPoolExecutor(2) as pool:
        busy = filled(node, pool)
        bare = ask(node.url, "Hello", stream=True)
        said = ask(gateway.url, "Hello", stream=stream)
        assert [True, True] == [one.result().is_whole for one in busy]

    assert (200, 503) == (bare.status, bare.error["code"])
    assert 503 == said.status
    assert ENVELOPE == set(said.error)
    assert not said.has_begun


def test_another_node_takes_over_from_a_full_queue(node: EngineNode, lender: Lender) -> None:
    """Chosen anew before the first byte: the client sees an answer and no error."""
    full, free = lender.lend(node.traits, SMALL["sglang"])
    with (
        running_gateway(f"sglang={full.url}", f"sglang={free.url}") as gateway,
        ThreadPoolExecutor(2) as pool,
    ):
        busy = filled(full, pool)
        said = [ask(gateway.url, f"Hello {number}", stream=True, max_tokens=1) for number in range(6)]
        assert [True, True] == [one.result().is_whole for one in busy]
    assert {(200, True, free.name)} == {(one.status, one.is_whole, one.node) for one in said}


def test_readiness_is_asked_where_it_costs_nothing(node: EngineNode, gateway: Gateway) -> None:
    """`/health` would generate a token each time."""
    ask(gateway.url, "Hello", model=MODEL_NAME)
    said = node.log.read_text(errors="replace")
    begins = said.rfind("GET /ready")
    assert begins > 0
    assert "GET /health" not in said
