"""What a request asks, which conversation it names, and what of it a node gets to see."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.request import ChatRequest, header_map, node_body, read_request

HELLO = [{"role": "user", "content": "hello"}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def read(
    headers: dict[bytes, bytes] | None = None, *, adopt_cache_key: bool = False, **fields: Any
) -> ChatRequest:
    """A request of these fields."""
    body = json.dumps({"model": "m", "messages": HELLO, **fields}).encode()
    return read_request(body, headers or {}, adopt_cache_key=adopt_cache_key)


PLACES: list[tuple[dict[str, Any], dict[bytes, bytes]]] = [
    ({"conversation": "a"}, {}),
    ({"conversation": {"id": "a"}}, {}),
    ({}, {b"x-session-id": b"a"}),
    ({"session_id": "a"}, {}),
    ({"prompt_cache_key": "a"}, {}),
    ({"metadata": {"session_id": "a"}}, {}),
]


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_first_place_that_names_a_conversation_wins(first: int) -> None:
    """Each place beats all that come after it in the contract, and the last two need the setting."""
    fields: dict[str, Any] = {}
    headers: dict[bytes, bytes] = {}
    for at, (some, more) in reversed(list(enumerate(PLACES[first:]))):
        name = "later" if at else "a"
        fields |= json.loads(json.dumps(some).replace('"a"', f'"{name}"'))
        headers |= {header: name.encode() for header in more}

    assert read(headers, adopt_cache_key=True, **fields).conversation == "a"


def test_cache_key_and_metadata_name_nothing_unless_configured() -> None:
    """They mean something else to OpenAI's clients."""
    assert read(prompt_cache_key="a", metadata={"session_id": "b"}).conversation is None


@pytest.mark.parametrize("fields", [{}, {"conversation": ""}, {"conversation": None}, {"session_id": ""}])
def test_empty_name_is_no_name(fields: dict[str, Any]) -> None:
    """The request is stateless then."""
    assert read({b"x-session-id": b""}, **fields).conversation is None


def test_only_ids_of_ours_must_exist() -> None:
    """Any other id is made on first use."""
    assert (True, False) == (read(session_id="conv_1").must_exist, read(session_id="mine").must_exist)


def test_switching_history_off_makes_it_stateless() -> None:
    """Then even an id that does not exist is none, and more than one choice is allowed."""
    request = read({b"x-history": b"OFF"}, session_id="conv_1", n=3)
    assert (None, False) == (request.conversation, request.must_exist)


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({"safety_identifier": "s", "user": "u", "metadata": {"user_id": "m"}}, "s"),
        ({"user": "u", "metadata": {"user_id": "m"}}, "u"),
        ({"metadata": {"user_id": "m"}}, "m"),
        ({}, ""),
    ],
)
def test_user_is_the_first_that_is_named(fields: dict[str, Any], user: str) -> None:
    """OpenAI's newer field before its older one."""
    assert user == read(**fields).user


@pytest.mark.parametrize("text", ["a\r\nb", "a\x00", "\x7f", "x" * 257])
@pytest.mark.parametrize("field", ["conversation", "session_id", "user"])
def test_names_have_bounds(field: str, text: str) -> None:
    """They come back in headers and become keys."""
    with pytest.raises(BadRequest):
        read(None, adopt_cache_key=False, **{field: text})


def test_names_may_be_in_any_script() -> None:
    """Up to 256 characters of it."""
    assert read(conversation="Gespräch 🌊 " * 20).conversation == "Gespräch 🌊 " * 20


@pytest.mark.parametrize(("value", "is_retry"), [(b"0", False), (b"1", True), (None, False)])
def test_retry_is_told_by_the_sdk(value: bytes | None, *, is_retry: bool) -> None:
    """By its count; absent, it is none."""
    headers = {} if value is None else {b"x-stainless-retry-count": value}
    assert is_retry == read(headers).is_retry


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4), st.booleans())
def test_node_gets_every_field_it_may_have(extra: dict[str, Any], stream: bool) -> None:
    """As the client wrote it, whatever its name; the model and the messages are the gateway's."""
    fields = {f"x-{name}": value for name, value in extra.items()}
    request = read(stream=stream, **fields)
    sent = json.loads(node_body(request, b'[{"role":"user","content":"other"}]', model="served"))

    assert sent.pop("model") == "served"
    assert sent.pop("messages") == [{"role": "user", "content": "other"}]
    assert sent.pop("stream") is stream
    assert sent.pop("stream_options", None) == ({"include_usage": True} if stream else None)
    assert fields == sent


def test_node_gets_nothing_that_is_the_gateways_to_say() -> None:
    """Whose cache, which rank, which turn: also when the name is written with escapes."""
    ours: dict[str, Any] = {
        "conversation": "c",
        "session_id": "s",
        "on_busy": "queue",
        "cache_salt": "x",
        "priority": 1,
    }
    ours |= {"kv_transfer_params": {}, "request_id": "r", "rid": "r", "extra_key": "e", "lora_path": "l"}
    body = json.dumps({"model": "m", "messages": HELLO, **ours}).replace('"cache_salt"', '"cache\\u005fsalt"')
    request = read_request(body.encode(), {}, adopt_cache_key=False)

    assert {"model", "messages"} == set(json.loads(node_body(request, request.messages, model="m")))


def test_stream_options_of_the_client_are_kept() -> None:
    """Usage is always asked for; whether the client sees it is another matter."""
    request = read(stream=True, stream_options={"include_usage": False, "other": 1})
    sent = json.loads(node_body(request, request.messages, model="m"))

    assert {"include_usage": True, "other": 1} == sent["stream_options"]
    assert not request.wants_usage


def test_same_body_has_the_same_hash() -> None:
    """By which a retry is known."""
    assert read(seed=1).body_hash == read(seed=1).body_hash
    assert read(seed=1).body_hash != read(seed=2).body_hash


def test_last_of_equal_headers_counts() -> None:
    """Names come in lower case."""
    assert header_map([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"3", b"b": b"2"}
