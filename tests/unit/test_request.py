"""What a request asks, which conversation it names, and what of it a node gets to see."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, BodyEncoded
from gateway.request import ChatRequest, Stateless, node_body, read_request

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


@pytest.mark.parametrize(("salt", "takes", "sent"), [("s", True, "s"), ("s", False, None), ("", True, None)])
def test_the_salt_is_the_gateways(salt: str, takes: bool, sent: str | None) -> None:
    """Whatever the client wrote there; an engine that knows none gets none."""
    request = msgspec.structs.replace(read(cache_salt="mine"), salt=salt)
    body = json.loads(node_body(request, request.messages, model="m", takes_salt=takes))

    assert sent == body.get("cache_salt")


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


@pytest.mark.parametrize("value", [b"maybe", b"true", b"on,off", b"windows"])
def test_unknown_wish_for_history_is_refused_with_those_that_are_known(value: bytes) -> None:
    """Taken for `on`, it would store what somebody wanted left alone."""
    with pytest.raises(BadRequest, match="on, off, window") as caught:
        read({b"x-history": value})
    assert caught.value.param == "x-history"


@pytest.mark.parametrize(
    ("header", "configured", "expected"),
    [
        (b"", "off", False), (b"on", "off", False), (b"window", "off", True), (b"Window", "off", True),
        (b"", "window", True), (b"on", "window", True), (b"off", "window", False),
    ],
)  # fmt: skip
def test_header_goes_before_the_setting(header: bytes, configured: Stateless, *, expected: bool) -> None:
    """Of a request without a conversation, both say whether its dialogue is cut."""
    body = json.dumps({"model": "m", "messages": HELLO}).encode()
    headers = {b"x-history": header} if header else {}
    request = read_request(body, headers, adopt_cache_key=False, stateless=configured)
    assert expected == request.is_windowed


def test_conversation_has_its_own_window() -> None:
    """Asking for another one is refused, and the setting does not touch it."""
    with pytest.raises(BadRequest, match="its own window"):
        read({b"x-history": b"window"}, session_id="mine")
    body = json.dumps({"model": "m", "messages": HELLO, "session_id": "mine"}).encode()
    assert not read_request(body, {}, adopt_cache_key=False, stateless="window").is_windowed


@pytest.mark.parametrize(
    ("text", "place"),
    [(r"\ud800", 13), (r"ab\ud83d", 15), (r"\udc00", 13), (r"\ud83d\ude00\ud83d", 25), (r"\\\ud800x", 15)],
)
def test_half_a_surrogate_pair_is_called_that(text: str, place: int) -> None:
    """And found: msgspec would call the body cut off."""
    with pytest.raises(BadRequest, match=rf"surrogate pair is no character \(byte {place}\)"):
        read_request(b'{"messages":"%b"}' % text.encode(), {}, adopt_cache_key=False)


def test_half_a_pair_is_found_where_the_body_goes_on() -> None:
    """Right behind it, where msgspec says something else of it."""
    with pytest.raises(BadRequest, match=r"surrogate pair is no character \(byte 13\)"):
        read_request(rb'{"messages":"\ud800","model":"m"}', {}, adopt_cache_key=False)


@pytest.mark.parametrize("text", [r"\ud83d\ude00", r"\\ud800", r"\u0041", "plain"])
def test_body_that_was_cut_off_is_called_that(text: str) -> None:
    """A whole pair, or what only looks like half of one, is not blamed."""
    with pytest.raises(BadRequest, match="truncated"):
        read_request(b'{"messages":"%b"' % text.encode(), {}, adopt_cache_key=False)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("on_busy", "panic", "on_busy must be one of queue, restart, reject"),
        ("on_busy", 1, "on_busy must be one of queue, restart, reject"),
        ("conversation", 5, "conversation must be a string or an object with an id"),
        ("conversation", {"name": "x"}, "conversation must be a string or an object with an id"),
    ],
)
def test_refused_value_comes_with_what_is_allowed(field: str, value: object, message: str) -> None:
    """Whoever reads it knows what to write."""
    with pytest.raises(BadRequest) as caught:
        read(None, adopt_cache_key=False, **{field: value})
    assert (message, field) == (caught.value.message, caught.value.param)


@pytest.mark.parametrize("encoding", [b"gzip", b"BR", b"gzip, identity", b"x" * 9000])
def test_encoded_body_is_refused_as_such(encoding: bytes) -> None:
    """By its header, and without an attempt to read it as JSON."""
    with pytest.raises(BodyEncoded) as caught:
        read_request(b"\x1f\x8b\x08", {b"content-encoding": encoding}, adopt_cache_key=False)
    assert "not supported" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_identity_is_no_encoding() -> None:
    """Some clients say it."""
    assert read({b"content-encoding": b"Identity"}).model == "m"
