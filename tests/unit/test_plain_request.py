"""Text completions and embeddings: what is read, what a node gets, and by what a prefix is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, BodyEncoded
from gateway.plain_request import pieces_of, read_plain_request
from gateway.request import EMBEDDINGS, PROMPTS, TEXT, ChatRequest, node_body
from gateway.routing.choice import RoutingRules
from gateway.routing.ledger import Ledger
from gateway.routing.router import Router
from gateway.scoring import prefix_of_request


def read(path: str = TEXT, **fields: Any) -> ChatRequest:
    """A request of these fields."""
    body = {"model": "m", PROMPTS[path]: "Once upon a time", **fields}
    return read_plain_request(json.dumps(body).encode(), {}, path=path)


def sent(request: ChatRequest) -> dict[str, Any]:
    """What a node gets."""
    body: dict[str, Any] = json.loads(node_body(request, request.messages, model="other"))
    return body


@pytest.mark.parametrize("prompt", ["Once", ["Once", "twice"], [1, 2, 3], [[1, 2], [3]]])
@pytest.mark.parametrize("path", [TEXT, EMBEDDINGS])
def test_what_an_engine_takes_passes_and_what_is_ours_does_not(path: str, prompt: Any) -> None:
    """The prompt as it came, the name that the node knows, nothing that only the gateway may say."""
    request = read(path, **{PROMPTS[path]: prompt}, user="u", dimensions=8, cache_salt="x", priority=-1)

    assert {"model": "other", PROMPTS[path]: prompt, "user": "u", "dimensions": 8} == sent(request)


def test_a_stream_carries_its_usage_whoever_wants_it() -> None:
    """Of vectors there is no stream."""
    for wish, wanted in ({}, False), ({"stream_options": {"include_usage": True}}, True):
        request = read(stream=True, **wish)
        assert (request.wants_usage, sent(request)["stream_options"]) == (wanted, {"include_usage": True})
    assert not read(EMBEDDINGS, stream=True).stream


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": ["x"] * 2049}, "prompt"),
    ({"model": None}, "model"),
    ({"model": 7}, "model"),
    ({"n": 129}, "n"),
    ({"best_of": 0}, "best_of"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"stream": "yes"}, "stream"),
    ({"conversation": "c"}, "conversation"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    """In the words of OpenAI's errors: by its parameter."""
    with pytest.raises(BadRequest) as refused:
        read(**fields)
    assert refused.value.param == param


def test_token_ids_are_as_many_as_the_model_takes() -> None:
    """Only texts are counted."""
    assert read(prompt=list(range(5000))).messages
    with pytest.raises(BodyEncoded):
        read_plain_request(b"{}", {b"content-encoding": b"gzip"}, path=TEXT)


@given(st.binary(max_size=9000), st.binary(max_size=9000))
def test_a_text_that_grows_keeps_its_pieces(text: bytes, more: bytes) -> None:
    """But for one that was shorter than a piece."""
    before, after = pieces_of(text), pieces_of(text + more)

    assert before == after[: len(before)] or len(text) < 2048
    assert b"".join(before) == text[: sum(map(len, before))]


def prefix(request: ChatRequest) -> tuple[bytes, ...]:
    router = Router({}, Ledger(), RoutingRules())
    return prefix_of_request(request, router, 0.0).chain.links


def test_a_chat_and_a_text_share_nothing_and_vectors_leave_nothing() -> None:
    """The same bytes make other prompts."""
    story = "word " * 2000

    assert len(prefix(read(prompt=story))) == 4
    assert prefix(read(prompt=story)) == prefix(read(prompt=story + "more"))
    assert prefix(read(prompt=story))[0] != prefix(read(prompt=story, model="n"))[0]
    assert () == prefix(read(EMBEDDINGS, input=story))
