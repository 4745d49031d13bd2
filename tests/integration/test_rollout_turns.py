"""Versions as users meet them: never changed within a turn, kept where they answered, told in a header."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.ports import free_port
from tests.rollout_desk import Desk, desk, say, write_weights

ALIAS, V1, V2 = "luna", "luna--v1", "luna--v2"
LONG = "Once more, from the beginning: " + "all of this is said again and again. " * 20


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A node of this test alone: adapters stay loaded."""
    with running_stub() as node:
        yield node


@pytest.fixture
def gateway(stub: Stub) -> Iterator[Gateway]:
    """Over one node, its dialogues and rollouts in memory."""
    with running_gateway(f"vllm={stub.url}") as running:
        yield running


@pytest.fixture
def admin(gateway: Gateway, tmp_path: Path) -> Iterator[Desk]:
    """With version 1 for everybody."""
    with desk(gateway) as found:
        shared(found, "v1", write_weights(tmp_path / "v1"))
        found.do("widen", ALIAS).raise_for_status()
        yield found


def shared(admin: Desk, version: str, path: str, share: float = 1.0) -> None:
    """A version that conversations begin with."""
    admin.start(ALIAS, version, path, approved=True, steps=[share], base="stub").raise_for_status()
    assert until(lambda: admin.state(ALIAS) == "sharing"), admin.shown(ALIAS)


@pytest.mark.parametrize("whole", [False, True])
def test_a_tools_result_goes_to_the_version_that_called_it(
    admin: Desk, gateway: Gateway, tmp_path: Path, *, whole: bool
) -> None:
    """Alone or with its dialogue, also if that was taken back meanwhile. The next turn is another matter."""
    shared(admin, "v2", write_weights(tmp_path / "v2"))
    tools = [{"type": "function", "function": {"name": "dice", "parameters": {"type": "object"}}}]
    body: dict[str, Any] = {"model": ALIAS, "conversation": "tools", "tools": tools}
    asked = {**body, "messages": [{"role": "user", "content": "call dice"}]}
    url = f"{gateway.url}/v1/chat/completions"
    first = httpx.post(url, json=asked, timeout=30, trust_env=False)
    called = first.raise_for_status().json()["choices"][0]["message"]
    admin.do("back", ALIAS).raise_for_status()
    result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "4"}
    said = [*asked["messages"], called, result] if whole else [result]
    second = httpx.post(
        url, json={**body, "messages": said, "tool_choice": "none"}, timeout=30, trust_env=False
    )

    versions = [one.headers["x-friendo-version"] for one in (first, second.raise_for_status())]
    assert [V2, V2] == versions
    assert V1 == say(gateway, ALIAS, "tools").version


def test_what_is_answered_anew_or_again_stays_with_its_version(
    admin: Desk, gateway: Gateway, tmp_path: Path
) -> None:
    """Though the dialogue has gone on to the next one, with its prefix warm."""
    said = [say(gateway, ALIAS, "kept", LONG, headers={"idempotency-key": f"{n}"}) for n in range(2)]
    shared(admin, "v2", write_weights(tmp_path / "v2"))
    admin.do("widen", ALIAS).raise_for_status()
    assert until(lambda: events(gateway).get("warm", 0) >= 1)

    retried = say(gateway, ALIAS, "kept", LONG, headers={"idempotency-key": "1"})
    assert (V1, said[1].text) == (retried.version, retried.text)
    anew = httpx.post(
        f"{gateway.url}/v1/conversations/kept/regenerate", json={"model": ALIAS}, timeout=30, trust_env=False
    )
    assert V1 == anew.raise_for_status().headers["x-friendo-version"]
    assert ALIAS == anew.json()["model"]
    assert until(lambda: events(gateway).get("warm", 0) >= 2)
    after = say(gateway, ALIAS, "kept", "go on")
    assert V2 == after.version
    assert after.cached > 0.5 * after.prompt
    assert 1 == admin.report(ALIAS)["versions"][V1]["regenerations"]


def test_without_a_conversation_a_user_has_one_version(admin: Desk, gateway: Gateway, tmp_path: Path) -> None:
    """Whoever is not named gets the current one."""
    shared(admin, "v2", write_weights(tmp_path / "v2"), share=0.5)
    users = {
        f"user {n}": {say(gateway, ALIAS, "", user=f"user {n}").version for _ in range(2)} for n in range(20)
    }

    assert all(len(versions) == 1 for versions in users.values())
    assert {V1, V2} == set().union(*users.values())
    assert {V1} == {say(gateway, ALIAS, "").version for _ in range(5)}


def test_what_is_asked_for_by_its_own_name_is_no_alias(admin: Desk, gateway: Gateway) -> None:
    """As before; the list shows the alias in place of its versions."""
    plain = say(gateway, "stub", "plain")
    assert (200, "stub", "") == (plain.status, plain.model, plain.version)
    listed = httpx.get(f"{gateway.url}/v1/models", trust_env=False).json()["data"]
    assert ["luna", "stub"] == [one["id"] for one in listed]
    assert 200 == httpx.get(f"{gateway.url}/v1/models/luna", trust_env=False).status_code
    assert ALIAS == admin.shown(ALIAS)["alias"]


def test_ratings_count_for_the_version_that_answered(admin: Desk, gateway: Gateway) -> None:
    """Once each, whatever somebody thinks of it in the end."""
    say(gateway, ALIAS, "rated")
    base = f"{gateway.url}/v1/conversations/rated/items"
    items = httpx.get(base, trust_env=False).raise_for_status().json()["data"]
    answer = next(item["id"] for item in items if item["role"] == "assistant")

    def rate(rating: str | None) -> tuple[int, int]:
        url = f"{base}/{answer}/feedback"
        httpx.post(url, json={"rating": rating}, trust_env=False).raise_for_status()
        told = admin.report(ALIAS)["versions"][V1]
        return told["ups"], told["downs"]

    assert [(1, 0), (0, 1), (0, 1), (0, 0)] == [rate(one) for one in ("up", "down", "down", None)]


def test_a_key_for_the_alias_opens_no_version(stub: Stub, valkey: Valkey, tmp_path: Path) -> None:
    """Keys name what clients ask for, so they hold over all versions."""
    env = {"FRIENDO_KEY_PEPPER": "p" * 32, "FRIENDO__STORE__URL": valkey.url}

    def key(*options: str) -> str:
        command = [
            sys.executable,
            "-m",
            "gateway",
            "keys",
            "create",
            "--tenant",
            "t",
            "--name",
            "n",
            *options,
        ]
        made = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=True)
        return made.stdout.strip()

    user, operator = key("--model", ALIAS), key("--scope", "admin")
    options = ("--redis", valkey.url)
    with (
        running_gateway(f"vllm={stub.url}", options=options, env=env, auth=True) as gateway,
        desk(gateway) as admin,
    ):
        admin.client.headers["authorization"] = f"Bearer {operator}"
        shared(admin, "v1", write_weights(tmp_path / "v1"))
        headers = {"authorization": f"Bearer {user}"}
        allowed = say(gateway, ALIAS, "mine", headers=headers)
        refused = say(gateway, V1, "mine", headers=headers)
        by = admin.shown(ALIAS)["history"][0]["by"]

    assert (200, V1, 403) == (allowed.status, allowed.version, refused.status)
    assert operator.split("-")[1] in by


def events(gateway: Gateway) -> dict[str, float]:
    """Rare things that were counted."""
    lines = httpx.get(f"{gateway.admin_url}/metrics", trust_env=False).text.splitlines()
    head = 'friendo_events_total{kind="'
    found = (line.removeprefix(head).split('"} ') for line in lines if line.startswith(head))
    return {kind: float(count) for kind, count in found}


def test_sglang_is_asked_for_an_adapter_by_its_model_too(tmp_path: Path) -> None:
    """Its bare name would be answered by the base; the client sees the alias, in every chunk."""
    with (
        running_stub(engine="sglang") as node,
        running_gateway(f"sglang={node.url}") as gateway,
        desk(gateway) as admin,
    ):
        shared(admin, "v1", write_weights(tmp_path / "v1"))
        body = {"model": ALIAS, "messages": [{"role": "user", "content": LONG}], "stream": True}
        with httpx.stream(
            "POST",
            f"{gateway.url}/v1/chat/completions",
            json={**body, "conversation": "streamed"},
            timeout=30,
            trust_env=False,
        ) as answer:
            chunks = [line for line in answer.iter_lines() if line.startswith("data: {")]
            version = answer.headers["x-friendo-version"]
        asked = node.stats()["recent"][-1]["body"]["model"]
        told = admin.report(ALIAS)["versions"][V1]

    assert (V1, f"stub:{V1}") == (version, asked)
    assert len(chunks) > 10
    assert all(f'"model":"{ALIAS}"' in chunk.replace(": ", ":") for chunk in chunks)
    assert (1, 1, 1) == (told["answers"], told["conversations"], told["turns"])
    assert told["ttft_p50_s"] > 0


def test_after_a_restart_of_all_the_alias_answers_as_before(valkey: Valkey, tmp_path: Path) -> None:
    """The record is the truth: the next gateway loads what the node has lost, and the dialogue goes on."""
    options, port = ("--redis", valkey.url), free_port()
    with (
        running_stub(port=port) as node,
        running_gateway(f"vllm={node.url}", options=options) as gateway,
        desk(gateway) as admin,
    ):
        shared(admin, "v1", write_weights(tmp_path / "v1"))
        assert V1 == say(gateway, ALIAS, "kept").version
    with (
        running_stub(port=port) as node,
        running_gateway(f"vllm={node.url}", options=options) as gateway,
        desk(gateway) as admin,
    ):
        assert until(lambda: V1 in admin.versions(ALIAS)[f"127.0.0.1:{port}"])
        again = say(gateway, ALIAS, "kept")
        assert until(lambda: admin.report(ALIAS)["versions"][V1]["turns"] == 2)

    assert (200, V1) == (again.status, again.version)
