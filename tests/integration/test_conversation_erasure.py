"""An erasure leaves nothing: no key, no value, no name, whatever else is going on at that moment.

The proof is a look at every key of a Valkey of this test alone, and at every byte of its value.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from redis import Redis

from history.beginning import Beginning, Owner
from history.conversation import Conversation, ConversationKey, Lease
from history.dialogue import Dialogues
from history.editing import Editor
from history.errors import ConversationErased
from history.grouping import Said
from history.import_events import Event, Start, Utterance
from history.importing import Importer, Wanted
from history.lease_keeper import LeaseKeeper
from history.message import message
from history.ports import Change
from history.redis_store import RedisStore
from history.rules import DialogueRules
from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_gateway, until

STUB = {"decode_rate": 20.0, "answer_tokens": 200}
USER, SECRET = "ada-lovelace", "the lighthouse keeper"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def gateway(stub: Stub, valkey: Valkey) -> Iterator[Gateway]:
    """A gateway over a store of this test alone."""
    with running_gateway(f"vllm={stub.url}", options=("--redis", valkey.url)) as process:
        yield process


def traces(valkey: Valkey, *needles: str) -> list[bytes]:
    """The keys in whose name or value one of these stands."""
    found = []
    with Redis.from_url(valkey.url) as raw:
        for name in raw.scan_iter(count=1000):
            whole = name + b"\0" + value(raw, name)
            if any(needle.encode() in whole for needle in needles):
                found.append(name)
    return found


def value(raw: "Redis[bytes]", name: bytes) -> bytes:
    """Everything under a key."""
    kind = raw.type(name)
    if kind == b"string":
        return raw.get(name) or b""
    if kind == b"hash":
        return b"\0".join(part for pair in raw.hgetall(name).items() for part in pair)
    if kind == b"list":
        return b"\0".join(raw.lrange(name, 0, -1))
    assert kind in (b"zset", b"none"), kind
    return b"\0".join(raw.zrange(name, 0, -1)) if kind == b"zset" else b""


class Talk:
    """A conversation with everything that can be kept of one."""

    def __init__(self, gateway: Gateway) -> None:
        self.url = gateway.url
        self.client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
        made = self.client.conversations.create(
            items=[{"role": "developer", "content": SECRET}, *[{"role": "user", "content": SECRET}]],
            metadata={"note": SECRET},
            extra_body={"user": USER},
        )
        self.id = made.id
        self.post("regenerate", model="stub", max_tokens=1)
        self.post("regenerate", model="stub", max_tokens=1)
        newest = self.client.conversations.items.list(self.id, limit=1).data[0]
        self.post(f"items/{newest.id}/feedback", rating="up", comment=SECRET)

    def post(self, action: str, **fields: object) -> dict[str, object]:
        """An action, which has to succeed."""
        answer = httpx.post(
            f"{self.url}/v1/conversations/{self.id}/{action}", json=fields, trust_env=False, timeout=20
        )
        assert answer.status_code == 200, answer.text
        body: dict[str, object] = answer.json()
        return body

    def erase(self) -> None:
        """By the API."""
        assert self.client.conversations.delete(self.id).deleted


@pytest.fixture
def talk(gateway: Gateway) -> Iterator[Talk]:
    """A conversation of this test alone."""
    one = Talk(gateway)
    yield one
    one.client.close()


def test_nothing_is_left_of_a_conversation(talk: Talk, valkey: Valkey) -> None:
    """Turns, siblings, ratings, metadata, its place in the user's index; its fork stays."""
    fork = talk.post("fork")["id"]
    assert len(traces(valkey, talk.id)) > 3
    talk.erase()

    assert [] == traces(valkey, talk.id)
    assert len(traces(valkey, str(fork))) > 2


def test_nothing_is_left_of_a_user(talk: Talk, gateway: Gateway, valkey: Valkey) -> None:
    """Not even the name, though a mark stays for a day that keeps late writers away."""
    fork = str(talk.post("fork")["id"])
    answer = httpx.delete(f"{gateway.admin_url}/admin/users/{USER}", trust_env=False)

    assert 2 == answer.json()["conversations"]
    assert [] == traces(valkey, talk.id, fork, USER, SECRET)
    with Redis.from_url(valkey.url) as raw:
        assert 1 == len(list(raw.scan_iter("friendo:*")))


@pytest.mark.parametrize("whole_user", [False, True])
def test_nothing_is_left_of_a_turn_that_is_being_written(
    talk: Talk, gateway: Gateway, valkey: Valkey, stub: Stub, *, whole_user: bool
) -> None:
    """Its client is told, and nothing of it is stored afterwards."""
    body = {
        "model": "stub",
        "conversation": talk.id,
        "stream": True,
        "max_tokens": 12,
        "messages": [{"role": "user", "content": SECRET}],
    }
    url = f"{gateway.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, trust_env=False, timeout=20) as answer:
        lines = answer.iter_lines()
        next(lines)
        if whole_user:
            httpx.delete(f"{gateway.admin_url}/admin/users/{USER}", trust_env=False).raise_for_status()
        else:
            talk.erase()
        at_once = traces(valkey, talk.id, SECRET)
        rest = [line for line in lines if line]

    assert [] == at_once
    assert "error" in json.loads(rest[-1].removeprefix("data: "))
    assert until(lambda: stub.stats()["running"] == 0)
    assert [] == traces(valkey, talk.id, SECRET)


def test_nothing_is_left_of_a_first_turn_of_an_erased_user(
    gateway: Gateway, valkey: Valkey, stub: Stub
) -> None:
    """Neither of the one that was under way nor of the next, which is refused."""
    body = {
        "model": "stub",
        "conversation": "my-own-id",
        "user": USER,
        "stream": True,
        "max_tokens": 12,
        "messages": [{"role": "user", "content": SECRET}],
    }
    url = f"{gateway.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, trust_env=False, timeout=20) as answer:
        lines = answer.iter_lines()
        next(lines)
        httpx.delete(f"{gateway.admin_url}/admin/users/{USER}", trust_env=False).raise_for_status()
        rest = [line for line in lines if line]
    late = httpx.post(url, json={**body, "stream": False}, trust_env=False, timeout=20)

    assert "error" in json.loads(rest[-1].removeprefix("data: "))
    assert 409 == late.status_code
    assert [] == traces(valkey, "my-own-id", USER, SECRET)


def file_of(turns: int) -> Iterator[Event]:
    """A dialogue of so many turns."""
    yield Start(seed=b"s", beginning=Beginning(owner=Owner(user=USER)), line=1)
    for line in range(turns):
        for role in ("user", "assistant"):
            yield Utterance(Said(message({"role": role, "content": f"{SECRET} {line}"})), line)


class Interrupted(RedisStore):
    """A store in which something else happens behind a commit."""

    def __init__(self, url: str, *, erases_user: bool, behind: int) -> None:
        super().__init__(url)
        self._erases_user = erases_user
        self._left = behind

    async def commit(self, key: ConversationKey, lease: Lease, change: Change) -> Conversation:
        self._left -= 1
        if self._left == 0:
            # Before this chunk is there, but after its lease was taken.
            await self._erase(key)
        done = await super().commit(key, lease, change)
        if self._left == 1:
            await self._erase(key)
        return done

    async def _erase(self, key: ConversationKey) -> None:
        if self._erases_user:
            await self.erase_user(key.tenant, USER)
        else:
            await self.erase(key)


@pytest.mark.parametrize("erases_user", [False, True])
@pytest.mark.parametrize("behind", [1, 2, 3])
async def test_nothing_is_left_of_a_running_import(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, *, erases_user: bool, behind: int
) -> None:
    """It ends at its next chunk, wherever the erasure comes in between."""
    monkeypatch.setattr("history.growing.CHUNK_TURNS", 10)
    store = Interrupted(valkey.url, erases_user=erases_user, behind=behind)
    rules = DialogueRules()
    dialogues = Dialogues(store, LeaseKeeper(store, clock=time.time), rules, time.time)
    names = iter(f"w{number}" for number in range(1000))
    importer = Importer(
        Editor(dialogues, store, rules, time.time, lambda: next(names)),
        store,
        Wanted(tenant="t", id="conv_mine"),
    )
    with pytest.raises(ConversationErased):
        _ = [one async for one in importer.run(file_of(100))]
    left = await asyncio.to_thread(traces, valkey, "conv_mine", USER, SECRET)
    await store.close()

    assert [] == left


def test_nothing_is_left_of_an_import_in_another_process(valkey: Valkey, tmp_path: Path) -> None:
    """The command that erases against the command that imports."""
    file = tmp_path / "talk.jsonl"
    with file.open("w") as out:
        for number in range(60_000):
            for role in ("user", "assistant"):
                print(json.dumps({"role": role, "content": f"{SECRET} {number}"}), file=out)
    command = [sys.executable, "-m", "gateway", "conversations"]
    env = {**os.environ, "FRIENDO__STORE__URL": valkey.url}
    options = ["import", str(file), "--user", USER, "--id", "conv_mine"]
    with subprocess.Popen([*command, *options], env=env, cwd=ROOT, stderr=subprocess.PIPE) as importing:
        assert until(lambda: len(traces(valkey, "conv_mine")) > 2, within_s=30)
        erased = subprocess.run(
            [*command, "erase", "--user", USER, "--yes"],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        _, said = importing.communicate(timeout=60)

    assert "Nothing of it is left" in erased.stderr
    assert importing.returncode == 1, said
    assert b"erased" in said
    assert [] == traces(valkey, "conv_mine", USER, SECRET)
