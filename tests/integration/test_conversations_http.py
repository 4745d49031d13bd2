"""Conversations as a client sees them: only what is new is sent, and the gateway remembers the rest."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway_process import Gateway, Stub, running_gateway
from tests.raw_http import CHAT

PEPPER = "p" * 32
TOOLS = [{"type": "function", "function": {"name": "dice", "parameters": {"type": "object"}}}]
Message = dict[str, Any]


@pytest.fixture(scope="module")
def gateway(stub: Stub, store_url: str) -> Iterator[Gateway]:
    """A gateway over each store."""
    with running_gateway(f"vllm={stub.url}", options=("--redis", store_url)) as process:
        yield process


class Talk:
    """One conversation over HTTP."""

    def __init__(self, url: str, stub: Stub, **headers: str) -> None:
        self.id = uuid.uuid4().hex
        self._stub = stub
        self._client = httpx.Client(
            base_url=url, headers={"x-session-id": self.id, **headers}, trust_env=False, timeout=20
        )

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def send(
        self, messages: list[Message], headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """One request."""
        return self._client.post(
            CHAT, json={"model": "stub", "messages": messages, **fields}, headers=headers
        )

    def tell(self, text: str, **fields: Any) -> str:
        """One user message; what is answered."""
        return said(self.send([user(text)], **fields))

    def prompt(self) -> list[tuple[str, str | None]]:
        """What the node was asked last, as roles and contents."""
        return [(message["role"], message.get("content")) for message in self._stub.prompts()[-1]]

    def asked(self) -> int:
        """How many requests the node has had."""
        count: int = self._stub.stats()["requests"]
        return count


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant's message."""
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    """A persona."""
    return {"role": "system", "content": text}


def said(answer: httpx.Response) -> str:
    """The text of an answer, streamed or not."""
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text
    lines = answer.text.splitlines()
    assert "data: [DONE]" in lines
    choices = [
        choice for line in lines if line.startswith("data: {") for choice in json.loads(line[6:])["choices"]
    ]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.fixture
def talk(gateway: Gateway, stub: Stub) -> Iterator[Talk]:
    """A new conversation."""
    one = Talk(gateway.url, stub)
    yield one
    one.close()


def events(gateway: Gateway, kind: str) -> int:
    """How often that has happened."""
    report = httpx.get(f"{gateway.admin_url}/admin/cache", trust_env=False).json()
    count: int = report["events"].get(kind, 0)
    return count


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_said_is_remembered(talk: Talk, *, stream: bool) -> None:
    """The second request holds one message; its answer needs the first."""
    first = talk.tell("My name is Ada", stream=stream)
    second = talk.tell("What is my name?", stream=stream)

    assert second == "Your name is Ada."
    assert talk.prompt() == [("user", "My name is Ada"), ("assistant", first), ("user", "What is my name?")]


@pytest.mark.parametrize("where", ["conversation", "object", "header", "session_id", "metadata"])
def test_conversation_can_be_named_in_many_places(gateway: Gateway, stub: Stub, where: str) -> None:
    """Body before header; a cache key and metadata name nothing unless that is configured."""
    name = uuid.uuid4().hex
    named: dict[str, dict[str, Any]] = {
        "conversation": {"conversation": name, "session_id": "other"},
        "object": {"conversation": {"id": name}},
        "header": {"session_id": "other"},
        "session_id": {"session_id": name},
        "metadata": {"metadata": {"session_id": name}, "prompt_cache_key": name},
    }
    headers = {"x-session-id": name} if where == "header" else {}
    body = {"model": "stub", "messages": [user("hi")], **named[where]}
    answers = [httpx.post(gateway.url + CHAT, json=body, headers=headers, trust_env=False) for _ in range(2)]

    remembered = where != "metadata"
    assert [name if remembered else None] * 2 == [answer.headers.get("x-session-id") for answer in answers]
    assert (3 if remembered else 1) == len(stub.prompts()[-1])


def test_persona_is_kept_and_a_new_one_starts_an_epoch(talk: Talk, gateway: Gateway) -> None:
    """Sent once it stays; sent again unchanged it changes nothing; changed it replaces the old one."""
    before = events(gateway, "epoch")
    said(talk.send([system("You are Mia"), user("one")]))
    talk.tell("two")
    said(talk.send([system("You are Mia"), user("three")]))
    same, same_epochs = talk.prompt(), events(gateway, "epoch")
    said(talk.send([system("You are Tom"), user("four")]))
    changed = talk.prompt()

    assert [("system", "You are Mia"), ("user", "one")] == same[:2]
    assert (6, before) == (len(same), same_epochs)
    assert ("system", "You are Tom") == changed[0]
    assert same[1:] == changed[1:6]
    assert before + 1 == events(gateway, "epoch")


@pytest.mark.parametrize("stream", [False, True])
def test_greeting_is_stored_without_a_node(talk: Talk, *, stream: bool) -> None:
    """The character speaks first, in the client's words."""
    before = talk.asked()
    greeting = said(talk.send([system("You are Mia"), assistant("Hi, I am Mia.")], stream=stream))
    asked = talk.asked()
    talk.tell("hello")

    assert ("Hi, I am Mia.", before) == (greeting, asked)
    assert [("system", "You are Mia"), ("assistant", "Hi, I am Mia."), ("user", "hello")] == talk.prompt()


def test_proactive_turn_has_no_user(talk: Talk) -> None:
    """Nothing but the persona: the character goes on by itself."""
    first = talk.tell("good night")
    second = said(talk.send([system("You are Mia")]))
    talk.tell("good morning")

    before = [("system", "You are Mia"), ("user", "good night"), ("assistant", first)]
    assert [*before, ("assistant", second), ("user", "good morning")] == talk.prompt()


@pytest.mark.parametrize("window", [0, 2])
def test_whole_dialogue_sent_back_is_not_doubled(talk: Talk, window: int) -> None:
    """All of it, or its end: as clients without memory of their own do."""
    dialogue: list[Message] = []
    for text in ("one", "two", "three", "four"):
        dialogue.append(user(text))
        dialogue.append(
            assistant(said(talk.send(dialogue[window:] if len(dialogue) > window + 1 else [user(text)])))
        )

    assert [(message["role"], message["content"]) for message in dialogue[:-1]] == talk.prompt()


def test_new_hi_equal_to_the_first_does_not_vanish(talk: Talk) -> None:
    """Sent alone or behind the whole dialogue, it is a turn of its own."""
    answer = talk.tell("hi")
    talk.tell("hi")
    alone = talk.prompt()
    said(talk.send([user("hi"), assistant(answer), user("hi"), assistant(answer), user("hi")]))

    assert [("user", "hi"), ("assistant", answer)] * 1 + [("user", "hi")] == alone
    assert [("user", "hi"), ("assistant", answer)] * 2 + [("user", "hi")] == talk.prompt()


def test_edited_message_makes_a_branch(talk: Talk, gateway: Gateway) -> None:
    """What was said after it is no longer in the prompt."""
    before = events(gateway, "branch")
    first = talk.tell("one")
    talk.tell("two")
    said(talk.send([user("one"), assistant(first), user("two, edited")]))
    edited = talk.prompt()
    talk.tell("three")

    assert [("user", "one"), ("assistant", first), ("user", "two, edited")] == edited
    assert edited == talk.prompt()[:3]
    assert before + 1 == events(gateway, "branch")


def test_answer_can_be_asked_for_again(talk: Talk) -> None:
    """The dialogue without its last answer: the same prompt, and the new answer takes the old one's place."""
    first = talk.tell("one")
    old = talk.tell("two", seed=1)
    prompt = talk.prompt()
    new = said(talk.send([user("one"), assistant(first), user("two")], seed=2))
    again = talk.prompt()
    talk.tell("three")

    assert old != new
    assert prompt == again
    assert [*prompt, ("assistant", new), ("user", "three")] == talk.prompt()


def test_foreign_dialogue_is_refused_and_changes_nothing(talk: Talk) -> None:
    """It matches nothing of what is stored."""
    first = talk.tell("one")
    answer = talk.send([user("another"), assistant("talk"), user("altogether")])
    talk.tell("two")

    assert (409, "conversation_mismatch", "false") == (
        answer.status_code,
        answer.json()["error"]["code"],
        answer.headers["x-should-retry"],
    )
    assert [("user", "one"), ("assistant", first), ("user", "two")] == talk.prompt()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_tool_call_and_its_result_are_one_turn(talk: Talk, *, stream: bool, whole: bool) -> None:
    """The result is sent alone, or behind the dialogue; the call is not doubled."""
    asked = talk.send([user("call dice")], tools=TOOLS, stream=stream)
    call = tool_call(asked)
    result = {"role": "tool", "tool_call_id": call["id"], "content": "6"}
    mine = [user("call dice"), {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    said(talk.send(mine if whole else [result], tools=TOOLS, tool_choice="none", stream=stream))
    seen = talk.prompt()
    talk.tell("thanks")

    assert [("user", "call dice"), ("assistant", None), ("tool", "6")] == seen
    assert ["user", "assistant", "tool", "assistant", "user"] == [role for role, _ in talk.prompt()]


def tool_call(answer: httpx.Response) -> dict[str, Any]:
    """The tool call of an answer, streamed or not, put together as an SDK does."""
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        whole: dict[str, Any] = answer.json()["choices"][0]["message"]["tool_calls"][0]
        return whole
    call: dict[str, Any] = {}
    for line in answer.text.splitlines():
        for choice in json.loads(line[6:])["choices"] if line.startswith("data: {") else []:
            for piece in choice["delta"].get("tool_calls") or []:
                call = call or {
                    "id": piece["id"],
                    "type": "function",
                    "function": {"name": "", "arguments": ""},
                }
                call["function"]["name"] += piece["function"].get("name") or ""
                call["function"]["arguments"] += piece["function"].get("arguments") or ""
    return call


RETRIES = {"idempotency key": ("idempotency-key", "k1", "k1"), "SDK": ("x-stainless-retry-count", "0", "1")}


@pytest.mark.parametrize("kind", RETRIES)
@pytest.mark.parametrize("stream", [False, True])
def test_retry_gets_the_stored_answer(talk: Talk, gateway: Gateway, kind: str, *, stream: bool) -> None:
    """The node is not asked again, the dialogue not doubled; new words that are the same are no retry."""
    header, first_value, second_value = RETRIES[kind]
    before, replays = talk.asked(), events(gateway, "replay")
    options = {"include_usage": True} if stream else None
    fields = {"stream": stream, **({"stream_options": options} if options else {})}
    first = talk.send([user("once")], {header: first_value}, **fields)
    second = talk.send([user("once")], {header: second_value}, **fields)
    asked = talk.asked()
    talk.tell("once")

    assert said(first) == said(second)
    assert usage(first) == usage(second)
    assert (before + 1, replays + 1) == (asked, events(gateway, "replay"))
    assert [("user", "once"), ("assistant", said(first)), ("user", "once")] == talk.prompt()


def usage(answer: httpx.Response) -> tuple[int, int]:
    """The tokens that an answer reports."""
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    counted = next(filter(None, (json.loads(line).get("usage") for line in reversed(lines or [answer.text]))))
    return counted["prompt_tokens"], counted["completion_tokens"]


def test_retry_of_a_tool_call_gets_the_call(talk: Talk) -> None:
    """Streamed and whole, in the form that each has."""
    asked = [
        talk.send([user("call dice")], {"idempotency-key": "c"}, tools=TOOLS, stream=at > 0)
        for at in range(2)
    ]
    assert tool_call(asked[0]) == tool_call(asked[1])


def test_history_can_be_switched_off(talk: Talk) -> None:
    """For one request: nothing is read, nothing is stored."""
    first = talk.tell("one")
    off = talk.send([user("secret")], {"x-history": "off"}, n=1)
    prompt = talk.prompt()
    talk.tell("two")

    assert "x-session-id" not in off.headers
    assert [("user", "secret")] == prompt
    assert [("user", "one"), ("assistant", first), ("user", "two")] == talk.prompt()


def test_same_id_of_another_tenant_is_another_conversation(stub: Stub, valkey_url: str) -> None:
    """Keys are on: each sees its own dialogue, and nobody without a key sees any."""
    env = {"FRIENDO_KEY_PEPPER": PEPPER}
    keys = [create_key(tenant, valkey_url, env) for tenant in ("acme", "zorg")]
    options = ("--redis", valkey_url)
    with running_gateway(f"vllm={stub.url}", options=options, env=env, auth=True) as gateway:
        talks = [Talk(gateway.url, stub, authorization=f"Bearer {key}") for key in (*keys, "fr-nobody")]
        for one in talks:
            one._client.headers["x-session-id"] = talks[0].id
        talks[0].tell("My name is Ada")
        foreign = talks[1].tell("What is my name?")
        own = talks[0].tell("What is my name?")
        nobody = talks[2].send([user("hi")])
        for one in talks:
            one.close()

    assert ("I do not know your name.", "Your name is Ada.") == (foreign, own)
    assert (401, "invalid_api_key") == (nobody.status_code, nobody.json()["error"]["code"])


def create_key(tenant: str, url: str, env: dict[str, str]) -> str:
    """A key, as an operator makes one."""
    command = [
        sys.executable,
        "-m",
        "gateway",
        "keys",
        "create",
        "--tenant",
        tenant,
        "--name",
        "app",
        "--redis",
        url,
    ]
    made = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=True, timeout=60
    )
    return made.stdout.strip()


def test_nothing_unforeseen_was_logged(gateway: Gateway) -> None:
    """After all of the above."""
    assert "unforeseen" not in gateway.stderr()
    assert "Traceback" not in gateway.stderr()
