"""What a gateway finds out about real stub engines when it meets them, and which flag it names."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.node_traffic import Control, control, name_of

TRIAL = ("--set", "roster.trial=true")


@contextmanager
def met(engine: str, *, is_tried: bool = True, **traits: Any) -> Iterator[tuple[Stub, Gateway, Control]]:
    """A gateway over one node of these traits that has been tried out, if it was to be."""
    with (
        running_stub(engine=engine, **traits) as stub,
        running_gateway(f"{engine}={stub.url}", options=TRIAL) as gateway,
        control(gateway) as admin,
    ):
        if is_tried:
            assert until(lambda: node_of(stub, admin)["reports_cached_tokens"] is not None)
        yield stub, gateway, admin


def node_of(stub: Stub, admin: Control) -> dict[str, Any]:
    return admin.nodes()[name_of(stub.url)]


@pytest.mark.parametrize(
    ("engine", "product", "version", "priority"),
    [
        ("vllm", "vLLM", "0.32.0", True),
        ("sglang", "SGLang", "0.5.23", True),
        ("openai", "llama.cpp", "b0-stub", None),
    ],
)
def test_a_node_that_lacks_nothing_is_known_and_without_a_note(
    engine: str, product: str, version: str, priority: bool | None
) -> None:
    """Product, version, size of the cache, and what it takes."""
    with met(engine) as (stub, _, admin):
        node = node_of(stub, admin)
        capacity = None if engine == "openai" else 131_072

        assert (product, version, []) == (node["product"], node["version"], node["notes"])
        assert (True, True, priority) == (
            node["keeps_prefixes"],
            node["reports_cached_tokens"],
            node["takes_priority"],
        )
        assert (capacity, 8192) == (node["kv_tokens"], node["max_context"])


@pytest.mark.parametrize(
    ("engine", "flag"), [("vllm", "--enable-prompt-tokens-details"), ("sglang", "--enable-cache-report")]
)
def test_a_node_that_does_not_report_cached_tokens_is_named_with_its_flag(engine: str, flag: str) -> None:
    """On its page, and in the log at the start."""
    with met(engine, lacks="cache_report") as (stub, gateway, admin):
        assert until(lambda: bool(node_of(stub, admin)["notes"]))
        (note,) = node_of(stub, admin)["notes"]

        assert flag in note
        assert not node_of(stub, admin)["reports_cached_tokens"]
        assert until(lambda: flag in gateway.stderr())


@pytest.mark.parametrize(
    ("engine", "flag"), [("vllm", "--enable-prefix-caching"), ("sglang", "--disable-radix-cache")]
)
def test_a_node_that_keeps_no_prefixes_is_named_with_its_flag(engine: str, flag: str) -> None:
    """As vLLM 0.7.3 does by default; whether it would report hits cannot be known then."""
    with met(engine, is_tried=False, lacks="prefix_caching") as (stub, _, admin):
        assert until(lambda: any(flag in note for note in node_of(stub, admin)["notes"]))
        assert False is node_of(stub, admin)["keeps_prefixes"]


ROLES = (
    "its chat template takes no system message",
    "its chat template wants the user first",
)


@pytest.mark.parametrize("engine", ["vllm", "openai"])
@pytest.mark.parametrize(
    ("lacks", "notes", "keeps"),
    [
        ("roles", ROLES, (True, True)),
        ("turns", ("its chat template renders earlier turns anew",), (False, True)),
        ("thoughts", ("its chat template drops the thoughts of earlier answers",), (True, False)),
    ],
)
def test_a_chat_template_that_does_not_fit_is_named(
    engine: str, lacks: str, notes: tuple[str, ...], keeps: tuple[bool, bool]
) -> None:
    """By rendering a few dialogues, without a token generated."""
    with met(engine, is_tried=False, lacks=lacks) as (stub, _, admin):
        node = node_of(stub, admin)
        assert len(notes) == len(node["notes"])
        assert all(told.startswith(note) for told, note in zip(node["notes"], notes, strict=True))
        assert keeps == (node["template"]["keeps_turns"], node["template"]["keeps_thoughts"])


def test_a_vllm_that_refuses_priorities_is_found_out() -> None:
    """It answers 400 to a request with one, unless it was started for them."""
    with met("vllm", lacks="priority") as (stub, _, admin):
        node = node_of(stub, admin)

        assert (False, True, []) == (node["takes_priority"], node["reports_cached_tokens"], node["notes"])


def test_the_trial_is_small_and_can_be_switched_off(stub: Stub) -> None:
    """Two requests at most, of one token each; none where the operator wants none."""
    with running_gateway(f"vllm={stub.url}", options=("--set", "roster.trial=false")) as gateway:
        assert httpx.get(f"{gateway.url}/readyz", trust_env=False).status_code == 200
        with control(gateway) as admin:
            assert "0.32.0" == node_of(stub, admin)["version"]
    assert 0 == stub.stats()["requests"]

    with met("vllm") as (tried, _, _):
        assert until(lambda: tried.stats()["finished"] > 0)
        stats = tried.stats()
        assert stats["requests"] <= 2
        assert stats["completion_tokens"] == stats["finished"]
        assert stats["prompt_tokens"] < 300


def test_a_rank_of_a_node_gets_its_header_on_every_request(stub: Stub) -> None:
    """And is a node of its own, with a name of its own."""
    nodes = [{"engine": "vllm", "url": stub.url, "rank": rank} for rank in (0, 1)]
    options = ("--config", "config/dev.yaml", "--set", f"nodes={json.dumps(nodes)}")
    with running_gateway(options=options) as gateway, control(gateway) as admin:
        names = {f"{name_of(stub.url)}-rank{rank}" for rank in (0, 1)}
        assert names == admin.nodes().keys()
        body = {"model": "stub", "messages": [{"role": "user", "content": "which rank is this?"}]}
        for number in range(16):
            headers = {"x-session-id": f"s{number}"}
            url = f"{gateway.url}/v1/chat/completions"
            answer = httpx.post(url, json=body, headers=headers, trust_env=False)
            assert 200 == answer.status_code

    recent = stub.stats()["recent"][-16:]
    assert {"0", "1"} == {request["headers"]["x-data-parallel-rank"] for request in recent}


def test_clients_cannot_pick_a_rank(stub: Stub, gateway: Gateway) -> None:
    """The header is the gateway's own."""
    body = {"model": "stub", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"x-data-parallel-rank": "7"}
    httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, trust_env=False)

    assert "x-data-parallel-rank" not in stub.stats()["recent"][-1]["headers"]
