"""Limits on what is stored, as clients meet them: new turns are refused, everything else goes on."""

import contextlib
import itertools
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from redis import Redis

from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_gateway, until
from tests.integration.test_conversations_command import friendo

TENANT_TURNS = 3
LIMITED = ("--set", f"history.limits.tenant_turns={TENANT_TURNS}")


def say(gateway: Gateway, conversation: str, text: str = "hello", **more: Any) -> httpx.Response:
    """One message; `headers` go with it."""
    return httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json={
            "model": "stub",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 2,
            "conversation": conversation,
            "user": "ada",
            **more.pop("body", {}),
        },
        trust_env=False,
        timeout=20,
        **more,
    )


def fill(gateway: Gateway, conversation: str) -> httpx.Response:
    """Say things until one is refused; the refusal."""
    for number in range(60):
        answer = say(gateway, conversation, f"message {number}")
        if answer.status_code != 200:
            return answer
        time.sleep(0.1)
    raise AssertionError("nothing was ever refused")


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    """Each store that a gateway can have, of this test alone."""
    if request.param == "memory":
        return "memory"
    valkey: Valkey = request.getfixturevalue("valkey")
    return valkey.url


@pytest.fixture
def gateway(stub: Stub, store: str) -> Iterator[Gateway]:
    with running_gateway(f"vllm={stub.url}", options=("--redis", store, *LIMITED)) as process:
        yield process


def test_a_tenant_over_its_limit_gets_no_new_turn_and_everything_else(gateway: Gateway) -> None:
    """OpenAI's own error for a quota, which the SDK does not try again; erasing makes room."""
    conversation = f"c{uuid.uuid4().hex}"
    refused = fill(gateway, conversation)
    error = refused.json()["error"]
    kept = httpx.get(f"{gateway.url}/v1/conversations/{conversation}/items?limit=100", trust_env=False)
    exported = httpx.get(f"{gateway.admin_url}/admin/users/ada/export", trust_env=False)
    off = say(gateway, conversation, headers={"x-history": "off"})
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=3) as client:
        with pytest.raises(openai.RateLimitError, match="delete conversations"):
            client.conversations.items.create(
                conversation, items=[{"role": "user", "content": "more", "type": "message"}]
            )
        deleted = client.conversations.delete(conversation)

    assert (429, "insufficient_quota", "insufficient_quota") == (
        refused.status_code,
        error["code"],
        error["type"],
    )
    assert f"{TENANT_TURNS} may be" in error["message"]
    assert ("false", None) == (refused.headers["x-should-retry"], refused.headers.get("retry-after"))
    turns = len(kept.json()["data"]) // 2
    assert turns >= TENANT_TURNS
    assert turns == len([line for line in exported.text.splitlines() if '"friendo.turn"' in line])
    assert 200 == off.status_code
    assert deleted.deleted
    assert until(lambda: say(gateway, conversation).status_code == 200)


def test_what_was_stored_is_answered_again(gateway: Gateway) -> None:
    """A client whose answer got lost asks with the same key; that is no new turn."""
    conversation, key = f"c{uuid.uuid4().hex}", {"idempotency-key": "once"}
    say(gateway, conversation)
    say(gateway, conversation)
    last = say(gateway, conversation, "the last one", headers=key)
    fresh = ({"idempotency-key": uuid.uuid4().hex} for _ in itertools.count())
    # Few of them are let in before the total is known: the window still has the last one.
    assert until(lambda: say(gateway, conversation, headers=next(fresh)).status_code == 429, every_s=0.1)
    again = say(gateway, conversation, "the last one", headers=key)

    assert 200 == last.status_code == again.status_code
    assert last.json()["id"] == again.json()["id"]


def test_a_full_conversation_is_refused_before_a_model_is_asked(stub: Stub, store: str) -> None:
    """Another one of the same tenant goes on."""
    options = ("--redis", store, "--set", "history.limits.conversation_turns=2")
    with running_gateway(f"vllm={stub.url}", options=options) as gateway:
        conversation = f"c{uuid.uuid4().hex}"
        said = [say(gateway, conversation).status_code for _ in range(2)]
        asked = stub.stats()["requests"]
        refused = say(gateway, conversation, body={"stream": True})
        again = httpx.post(
            f"{gateway.url}/v1/conversations/{conversation}/regenerate",
            json={"model": "stub"},
            trust_env=False,
        )
        asked_since = stub.stats()["requests"] - asked
        other = say(gateway, f"{conversation}-2")

    assert [200, 200] == said
    assert ([400, 400], 0) == ([refused.status_code, again.status_code], asked_since)
    assert ("conversation_full", "conversation") == (
        refused.json()["error"]["code"],
        refused.json()["error"]["param"],
    )
    assert "new conversation" in refused.json()["error"]["message"]
    assert ("false", None) == (refused.headers["x-should-retry"], refused.headers.get("retry-after"))
    assert 200 == other.status_code


def test_replicas_share_a_tenant_s_total(stub: Stub, valkey: Valkey) -> None:
    """What one of them stored counts for the other, and after a restart."""
    options = ("--redis", valkey.url, *LIMITED)
    with contextlib.ExitStack() as stack:
        one, two = (
            stack.enter_context(running_gateway(f"vllm={stub.url}", options=options)) for _ in range(2)
        )
        fill(one, "c")
        say(two, "another")
        assert until(lambda: say(two, "another").status_code == 429)
    with running_gateway(f"vllm={stub.url}", options=options) as third:
        say(third, "yet another")
        assert until(lambda: say(third, "yet another").status_code == 429)


def test_what_expired_is_counted_no_more(stub: Stub, store: str) -> None:
    """By the sweep, which one of the gateways does now and then; the store in memory sees it by itself."""
    options = ("--redis", store, *LIMITED, "--set", "store.ttl_days=0.00002")
    options += ("--set", "history.upkeep.sweep_hours=0.0001")
    with running_gateway(f"vllm={stub.url}", options=options) as gateway:
        refused = fill(gateway, "c")
        assert 429 == refused.status_code
        assert until(lambda: say(gateway, "d").status_code == 200, within_s=15, every_s=0.1)


def test_the_command_counts_and_clears(
    stub: Stub, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each tenant has; what expired leaves the archive; a dry run changes nothing."""
    folder = tmp_path / "archive"
    monkeypatch.setenv("FRIENDO__ARCHIVE__URL", folder.as_uri())
    monkeypatch.setenv("FRIENDO__ARCHIVE__BEHIND_TURNS", "0")
    monkeypatch.setenv("FRIENDO__ARCHIVE__KEEP_DAYS", "0.000001")
    file = tmp_path / "talk.jsonl"
    lines = [{"role": role, "content": f"{n}"} for n in range(200) for role in ("user", "assistant")]
    file.write_text("\n".join(map(json.dumps, lines)))
    friendo(valkey, "import", file, "--id", "conv_there")
    friendo(valkey, "import", file, "--id", "conv_gone")
    options = ("--redis", valkey.url)
    with running_gateway(f"vllm={stub.url}", options=options) as gateway:
        for conversation in ("conv_there", "conv_gone"):
            assert 200 == say(gateway, conversation).status_code
        assert until(lambda: len(pieces(folder)) == 4, within_s=10)
    with Redis.from_url(valkey.url) as raw:
        raw.delete(*raw.keys("friendo:{default:conv_gone}:*"))
    time.sleep(0.2)
    dry, _ = friendo(valkey, "sweep", "--dry-run")
    still = len(pieces(folder))
    swept, _ = friendo(valkey, "sweep")
    exported, _ = friendo(valkey, "export", "conv_there")

    assert "default" in dry
    assert " 201 " in dry
    assert "1 expired conversations would leave" in dry
    assert 4 == still
    assert "1 expired conversations left the archive, 2 pieces" in swept
    assert 2 == len(pieces(folder))
    assert 202 == len(exported.splitlines())


def pieces(folder: Path) -> list[Path]:
    """The files of the archive."""
    return [path for path in folder.rglob("*") if path.is_file()]
