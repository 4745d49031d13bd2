"""Whose conversations there are: the control plane over keys, tenants and users."""

import contextlib
import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_gateway
from tests.tenants import guarded_gateway, key_of


@pytest.fixture
def gateway(stub: Stub, valkey: Valkey) -> Iterator[Gateway]:
    """A gateway that asks for keys, over a store of its own."""
    with guarded_gateway(f"vllm={stub.url}", valkey=valkey) as process:
        yield process


@contextlib.contextmanager
def client(gateway: Gateway, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=api_key, max_retries=0) as one:
        yield one


def admin(gateway: Gateway, api_key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {api_key}"}
    return httpx.Client(base_url=f"{gateway.admin_url}/admin", headers=headers, trust_env=False)


def talk(one: openai.OpenAI, user: str, *texts: str) -> str:
    """A conversation of this user."""
    made = one.conversations.create(extra_body={"user": user})
    for text in texts:
        one.chat.completions.create(
            model="stub",
            messages=[{"role": "user", "content": text}],
            extra_body={"conversation": made.id},
        )
    return made.id


def test_tenants_users_and_operators(gateway: Gateway, valkey: Valkey) -> None:
    """Another tenant's id is no id; an operator sees whose there are, takes them out and erases them."""
    with (
        client(gateway, key_of(gateway, valkey, "ours")) as ours,
        client(gateway, key_of(gateway, valkey, "theirs")) as theirs,
        admin(gateway, key_of(gateway, valkey, "ops", "admin")) as operator,
    ):
        _play(ours, theirs, operator)


def _play(ours: openai.OpenAI, theirs: openai.OpenAI, operator: httpx.Client) -> None:
    ids = [talk(ours, "ada/1", "one", "two"), talk(ours, "ada/1"), talk(ours, "ada/1", "three")]
    kept = talk(theirs, "ada/1", "mine")
    with pytest.raises(openai.NotFoundError):
        theirs.conversations.retrieve(ids[0])
    with pytest.raises(openai.NotFoundError):
        theirs.conversations.delete(ids[0])
    first = operator.get("/conversations", params={"tenant": "ours", "user": "ada/1", "limit": 2}).json()
    after = {"tenant": "ours", "user": "ada/1", "after": first["data"][-1]["id"]}
    second = operator.get("/conversations", params=after).json()
    exported = operator.get("/users/ada%2F1/export", params={"tenant": "ours"})
    lines = [json.loads(line) for line in exported.text.splitlines()]
    erased = operator.delete("/users/ada%2F1", params={"tenant": "ours"}).json()
    left = operator.get("/conversations", params={"tenant": "ours", "user": "ada/1"}).json()

    assert [(ids[0], 2), (ids[1], 0), (ids[2], 1)] == [
        (one["id"], one["turns"]) for one in [*first["data"], *second["data"]]
    ]
    assert (True, False) == (first["has_more"], second["has_more"])
    assert "application/jsonl" == exported.headers["content-type"]
    assert ids == [line["id"] for line in lines if line["object"] == "friendo.conversation"]
    assert 3 == len([line for line in lines if line["object"] == "friendo.turn"])
    assert (True, 3) == (erased["deleted"], erased["conversations"])
    assert [] == left["data"]
    with pytest.raises(openai.NotFoundError):
        ours.conversations.retrieve(ids[0])
    assert kept == theirs.conversations.retrieve(kept).id


def test_the_control_plane_asks_for_its_own_scope(gateway: Gateway, valkey: Valkey) -> None:
    """A key of the data plane opens nobody's list."""
    with admin(gateway, key_of(gateway, valkey, "ours")) as plain:
        answers = [
            plain.get("/conversations", params={"user": "ada"}),
            plain.get("/users/ada/export"),
            plain.delete("/users/ada"),
        ]
    with httpx.Client(base_url=f"{gateway.admin_url}/admin", trust_env=False) as nobody:
        answers.append(nobody.delete("/users/ada"))
    with httpx.Client(base_url=f"{gateway.url}/v1", trust_env=False) as nobody:
        answers.append(nobody.post("/conversations", json={}))
        answers.append(nobody.post("/conversations/conv_1/regenerate", json={"model": "stub"}))

    assert [403, 403, 403, 401, 401, 401] == [answer.status_code for answer in answers]


def test_a_list_needs_a_user(gateway: Gateway, valkey: Valkey) -> None:
    """Conversations are indexed by user; what is asked for otherwise is named."""
    with admin(gateway, key_of(gateway, valkey, "ops", "admin")) as operator:
        answers = [
            operator.get("/conversations"),
            operator.get("/conversations", params={"user": "u", "limit": 101}),
            operator.get("/conversations", params={"user": "u", "tenant": "a:b"}),
            operator.get("/conversations", params={"user": "u", "after": "x"}),
        ]

    assert [400, 400, 400, 404] == [answer.status_code for answer in answers]
    assert ["user", "limit", "tenant", "after"] == [answer.json()["error"]["param"] for answer in answers]


def test_an_erased_user_is_told_what_to_do(stub: Stub) -> None:
    """For a day nothing is kept of whoever was erased; a conversation that never was is not said to be."""
    with running_gateway(f"vllm={stub.url}") as process, httpx.Client(trust_env=False, timeout=20) as one:
        assert one.delete(f"{process.admin_url}/admin/users/ada").status_code == 200
        hello = {"model": "stub", "user": "ada", "messages": [{"role": "user", "content": "Hello"}]}
        chats = f"{process.url}/v1/chat/completions"
        refused = one.post(chats, json={**hello, "conversation": "new"})
        error = refused.json()["error"]

        assert (refused.status_code, error["code"]) == (409, "erased")
        assert "x-history: off" in error["message"]
        off = one.post(chats, json={**hello, "conversation": "new"}, headers={"x-history": "off"})
        assert off.status_code == 200
