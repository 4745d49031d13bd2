"""Bad input gets a clear error in OpenAI's envelope, reaches no node where it need not, and loses nothing."""

import gzip
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway_process import Gateway, Stub
from tests.raw_http import CHAT, chat

FIELDS = {"message", "type", "param", "code"}
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client as anybody's."""
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=20) as one:
        yield one


def refused(
    client: httpx.Client, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and error; whatever it is, it has all of the envelope and no promise that a retry helps."""
    answer = client.post(CHAT, content=body, headers=headers)
    error: dict[str, Any] = answer.json()["error"]
    assert FIELDS == set(error)
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, error


MALFORMED = {
    "nothing": b"",
    "no JSON": b"{nope",
    "half": chat()[:-5],
    "two": chat() + chat(),
    "a list": b"[]",
    "a string": b'"hello"',
    "null": b"null",
    "invalid UTF-8": chat().replace(b"hello", b"\xff\xfe"),
    "UTF-16": chat().decode().encode("utf-16"),
    "a lone surrogate": chat().replace(b"hello", b"\\ud800"),
    "a name twice broken": b'{"model":"stub","messages":[],',
    "deep": b'{"model":"stub","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and unclosed": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("remembered", [False, True])
def test_malformed_body_is_400(client: httpx.Client, stub: Stub, case: str, *, remembered: bool) -> None:
    """Whatever is wrong with it, no node sees it and nothing is stored."""
    before = stub.stats()["requests"]
    headers = {"x-session-id": uuid.uuid4().hex} if remembered else {}
    status, error = refused(client, MALFORMED[case], headers)

    assert (400, "invalid_request_error") == (status, error["type"])
    assert before == stub.stats()["requests"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "model"),
    "model of another type": ({"model": 7}, "model"),
    "no messages": ({"messages": None}, "messages"),
    "empty messages": ({"messages": []}, "messages"),
    "messages of another type": ({"messages": "hello"}, "messages"),
    "messages as an object": ({"messages": {"role": "user"}}, "messages"),
    "stream of another type": ({"stream": "yes"}, "stream"),
    "no choice": ({"n": 0}, "n"),
    "negative choices": ({"n": -1}, "n"),
    "thousands of choices": ({"n": 100_000}, "n"),
    "choices of another type": ({"n": "two"}, "n"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "absurd tokens": ({"max_tokens": 10**30}, "max_tokens"),
    "absurd completion tokens": ({"max_completion_tokens": 10**9}, "max_completion_tokens"),
    "stream options of another type": ({"stream": True, "stream_options": 1}, "stream_options"),
    "conversation of another type": ({"conversation": 5}, "conversation"),
    "conversation object without id": ({"conversation": {"name": "x"}}, "conversation"),
    "long conversation": ({"conversation": "x" * 257}, "conversation"),
    "conversation with a line break": ({"conversation": "a\r\nset-cookie: evil=1"}, "conversation"),
    "user of another type": ({"user": []}, "user"),
    "metadata of another type": ({"metadata": [1]}, "metadata"),
    "unknown wish when busy": ({"on_busy": "panic"}, "on_busy"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_field_is_400_and_named(client: httpx.Client, stub: Stub, case: str) -> None:
    """The parameter at fault is in `param`."""
    before = stub.stats()["requests"]
    fields, param = WRONG[case]
    given = {"model": "stub", "messages": HELLO, **fields}
    body = json.dumps({name: value for name, value in given.items() if value is not None}).encode()
    status, error = refused(client, body)

    assert (400, param) == (status, error["param"])
    assert before == stub.stats()["requests"]


WRONG_MESSAGES: dict[str, tuple[list[Any], str]] = {
    "no object": (["hello"], "messages"),
    "no role": ([{"content": "x"}], "messages[0].role"),
    "unknown role": ([*HELLO, {"role": "robot", "content": "x"}], "messages[1].role"),
    "no content": ([{"role": "user"}], "messages[0].content"),
    "number as content": ([{"role": "user", "content": 5}], "messages[0].content"),
    "no parts": ([{"role": "user", "content": []}], "messages[0].content"),
    "tool result that nobody waits for": (
        [{"role": "tool", "content": "7", "tool_call_id": "c"}],
        "messages",
    ),
}


@pytest.mark.parametrize("case", WRONG_MESSAGES)
def test_wrong_message_of_a_conversation_is_400_and_changes_nothing(
    client: httpx.Client, stub: Stub, case: str
) -> None:
    """The place is in `param`; the next message finds the conversation free and empty."""
    messages, param = WRONG_MESSAGES[case]
    headers = {"x-session-id": uuid.uuid4().hex}
    status, error = refused(client, chat(messages=messages), headers)
    after = client.post(CHAT, content=chat("after"), headers=headers)

    assert (400, param) == (status, error["param"])
    assert after.status_code == 200
    assert [{"role": "user", "content": "after"}] == stub.prompts()[-1]


def test_more_than_one_choice_and_a_conversation_do_not_go_together(client: httpx.Client) -> None:
    """Nobody could say which of them is to be remembered."""
    status, error = refused(client, chat(n=2), {"x-session-id": "one"})
    assert (400, "n") == (status, error["param"])


def test_unknown_model_is_404(client: httpx.Client) -> None:
    """With OpenAI's code, stored conversation or not."""
    for headers in ({}, {"x-session-id": uuid.uuid4().hex}):
        status, error = refused(client, chat(model="gpt-absent"), headers)
        assert (404, "model_not_found", "model") == (status, error["code"], error["param"])
        assert "gpt-absent" in error["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_greeting_for_an_unknown_model_is_404_and_not_stored(
    client: httpx.Client, stub: Stub, *, stream: bool
) -> None:
    """No node is asked for a greeting, but one has to be there for what follows it."""
    headers = {"x-session-id": uuid.uuid4().hex}
    greeting = [{"role": "assistant", "content": "Hi, I am Mia."}]
    status, error = refused(client, chat(model="gpt-absent", messages=greeting, stream=stream), headers)
    after = client.post(CHAT, content=chat("hello"), headers=headers)

    assert (404, "model_not_found", "model") == (status, error["code"], error["param"])
    assert after.status_code == 200
    assert HELLO == stub.prompts()[-1]


def test_unknown_wish_for_history_is_400(client: httpx.Client, stub: Stub) -> None:
    """Nothing is stored on a guess."""
    before = stub.stats()["requests"]
    for wish in ("window", "of"):
        status, error = refused(client, chat(), {"x-session-id": uuid.uuid4().hex, "x-history": wish})
        assert (400, "x-history") == (status, error["param"])
    assert before == stub.stats()["requests"]


def test_compressed_body_is_415(client: httpx.Client, stub: Stub) -> None:
    """Told by its header."""
    before = stub.stats()["requests"]
    status, error = refused(client, gzip.compress(chat()), {"content-encoding": "gzip"})

    assert (415, "unsupported_content_encoding") == (status, error["code"])
    assert "'gzip'" in error["message"]
    assert before == stub.stats()["requests"]


def test_unknown_conversation_object_is_404(client: httpx.Client) -> None:
    """An id that the gateway would have given out has to exist."""
    for fields in (
        {"conversation": "conv_absent"},
        {"conversation": {"id": "conv_absent"}},
        {"session_id": "conv_x"},
    ):
        status, error = refused(client, chat(**fields))
        assert (404, "conversation_not_found", "conversation") == (status, error["code"], error["param"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("remembered", [True, False])
def test_prompt_beyond_the_context_is_400(
    client: httpx.Client, stub: Stub, *, stream: bool, remembered: bool
) -> None:
    """The engine's word, with OpenAI's code; asked once, and the conversation goes on without it."""
    before = stub.stats()["requests"]
    headers = {"x-session-id": uuid.uuid4().hex} if remembered else {}
    status, error = refused(client, chat("word " * 9000, stream=stream), headers)
    after = client.post(CHAT, content=chat("short"), headers=headers)

    assert (400, "context_length_exceeded") == (status, error["code"])
    assert before + 2 == stub.stats()["requests"]
    assert after.status_code == 200
    assert [{"role": "user", "content": "short"}] == stub.prompts()[-1]


def test_header_of_a_request_comes_back(client: httpx.Client) -> None:
    """The client's own request id where it is one, a new one where it is not."""
    good = client.post(CHAT, content=chat(), headers={"x-request-id": "abc-1.2:3"})
    bad = client.post(CHAT, content=b"", headers={"x-request-id": "a b"})

    assert good.headers["x-request-id"] == "abc-1.2:3"
    assert bad.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("depth", [*range(900, 1000, 33), *range(985, 1000)])
def test_nesting_near_the_limit_is_answered_or_400(client: httpx.Client, depth: int) -> None:
    """No depth is an internal error. It comes late here, as the stub cannot show such requests."""
    raw = json.dumps(
        {"model": "stub", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}
    )
    nested = raw.replace('"x"}', '"x", "odd": ' + "[" * depth + "]" * depth + "}")
    answer = client.post(CHAT, content=nested, headers={"x-session-id": uuid.uuid4().hex})

    assert answer.status_code in {200, 400}


def test_nothing_unforeseen_was_logged(gateway: Gateway, client: httpx.Client) -> None:
    """After all of the above, the log knows of no error of ours, and of no word that was said."""
    client.post(CHAT, content=chat("a secret word"))
    log = gateway.stderr()

    assert "unforeseen" not in log
    assert "Traceback" not in log
    assert "secret" not in log
