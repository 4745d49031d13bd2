"""`/v1/completions` and `/v1/embeddings` by the unmodified OpenAI SDK."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.gateway_books import events, is_idle, nodes
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.integration.test_key_revocation import friendo
from tests.raw_http import RawClient

STORY = "Once upon a time there was a cat that could count. " * 200


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Stub, Stub]]:
    """Two nodes of one model."""
    with running_stub() as one, running_stub() as other:
        yield one, other


@pytest.fixture(scope="module")
def gateway(two: tuple[Stub, Stub]) -> Iterator[Gateway]:
    """In front of both."""
    with running_gateway(*(f"vllm={node.url}" for node in two)) as process:
        yield process


@pytest.fixture
def faulty(two: tuple[Stub, Stub]) -> Iterator[tuple[Stub, Stub]]:
    """The nodes, whose faults end with the test."""
    yield two
    for node in two:
        node.set_faults()


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """No retries, so that a test sees the first answer."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def post(gateway: Gateway, path: str, **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{gateway.url}/v1/{path}", json={"model": "stub", **fields}, trust_env=False, timeout=20
    )


def test_a_stream_says_the_same_as_the_whole(client: openai.OpenAI) -> None:
    """Without usage unless it was asked for."""
    whole = client.completions.create(model="stub", prompt="hello", max_tokens=20)
    asked: dict[str, Any] = {"model": "stub", "prompt": "hello", "max_tokens": 20, "stream": True}
    chunks = list(client.completions.create(**asked))
    counted = list(client.completions.create(**asked, stream_options={"include_usage": True}))

    assert ("text_completion", "stub") == (whole.object, whole.model)
    assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    assert whole.usage is not None
    assert counted[-1].usage is not None
    assert whole.usage.total_tokens == counted[-1].usage.total_tokens


def test_a_text_that_grows_finds_what_was_computed(client: openai.OpenAI, gateway: Gateway) -> None:
    """It goes where its beginning was, and the gateway knows how much of it is there."""
    text, routes = STORY, []
    for _ in range(6):
        raw = client.completions.with_raw_response.create(model="stub", prompt=text, max_tokens=20)
        answer = raw.parse()
        routes.append(raw.headers["x-friendo-route"])
        text += answer.choices[0].text + " And then? " * 30
    details = answer.usage and answer.usage.prompt_tokens_details

    assert ["prefix"] * 5 == routes[1:]
    assert details is not None
    assert (details.cached_tokens or 0) > 1500
    assert int(raw.headers["x-friendo-cached-expected"]) > 1500


def test_vectors_come_as_they_are(client: openai.OpenAI, gateway: Gateway) -> None:
    """In the form that the SDK asks for, base64, and as numbers; one for each text."""
    texts = ["a cat", "two cats"]
    found = client.embeddings.create(model="stub", input=texts)
    plain = post(gateway, "embeddings", input=texts).json()

    assert ["list", "stub", 2] == [found.object, found.model, len(found.data)]
    assert plain["data"][0]["embedding"] == pytest.approx(found.data[0].embedding, rel=1e-5)


@pytest.mark.parametrize(("path", "field"), [("completions", "prompt"), ("embeddings", "input")])
def test_errors_are_openais(gateway: Gateway, client: openai.OpenAI, path: str, field: str) -> None:
    """An unknown model, a missing prompt, another method, what is too large."""
    unknown = post(gateway, path, **{field: "x", "model": "nobody"})
    missing = post(gateway, path)
    method = httpx.get(f"{gateway.url}/v1/{path}", trust_env=False)

    error = unknown.json()["error"]
    assert (404, "model_not_found", "model") == (unknown.status_code, error["code"], error["param"])
    assert (400, field) == (missing.status_code, missing.json()["error"]["param"])
    assert (405, "POST") == (method.status_code, method.headers["allow"])
    assert post(gateway, path, **{field: "x" * 40_000_000}).status_code == 413
    with pytest.raises(openai.NotFoundError):
        client.post(f"/{path}", body={"model": "nobody", field: "x"}, cast_to=object)


def test_another_node_takes_over(faulty: tuple[Stub, Stub], gateway: Gateway) -> None:
    """As for a chat."""
    before = events(gateway)["failover"]
    for node in faulty:
        node.set_faults({"kind": "status", "status": 503, "path": "/v1/completions", "times": 1})
    statuses = {
        post(gateway, "completions", prompt=f"{number}", max_tokens=2).status_code for number in range(6)
    }

    assert 200 in statuses
    assert events(gateway)["failover"] > before


@pytest.mark.parametrize(("path", "field"), [("completions", "prompt"), ("embeddings", "input")])
@pytest.mark.parametrize("status", [404, 501])
def test_a_path_that_an_engine_does_not_have_is_no_failure_of_its(
    faulty: tuple[Stub, Stub], gateway: Gateway, path: str, field: str, status: int
) -> None:
    """Not every model is for every path, and who asks all the same must not take nodes away from chats."""
    for node in faulty:
        node.set_faults({"kind": "status", "status": status, "path": f"/v1/{path}"})
    refused = [post(gateway, path, **{field: "x"}) for _ in range(6)]

    assert {404} == {answer.status_code for answer in refused}
    assert f"not served under /v1/{path}" in refused[0].json()["error"]["message"]
    assert {"closed"} == {node["breaker"] for node in nodes(gateway)}


def test_vectors_that_fail_keep_nobody_from_talking(faulty: tuple[Stub, Stub], gateway: Gateway) -> None:
    """A node may fail there and answer all the same."""
    for node in faulty:
        node.set_faults({"kind": "status", "status": 500, "path": "/v1/embeddings"})
    assert {502} == {post(gateway, "embeddings", input="x").status_code for _ in range(4)}
    assert {"closed"} == {node["breaker"] for node in nodes(gateway)}
    assert 200 == post(gateway, "chat/completions", messages=[{"role": "user", "content": "x"}]).status_code


def test_who_leaves_stops_the_node(gateway: Gateway, two: tuple[Stub, Stub]) -> None:
    """Also a text completion."""
    body = b'{"model":"stub","prompt":"a long story","max_tokens":2000,"stream":true}'
    with RawClient(gateway.port) as leaving:
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
        leaving.send(head % (len(body), body))
        leaving.read_some(b"data: ")
    assert until(lambda: is_idle(gateway) and not any(node.stats()["running"] for node in two), within_s=5.0)


@pytest.mark.parametrize(("path", "field"), [("completions", "prompt"), ("embeddings", "input")])
def test_a_key_for_other_models_is_refused(
    two: tuple[Stub, Stub], valkey_url: str, path: str, field: str
) -> None:
    """As for a chat: who asks, and for which model, is looked at first."""
    env = {"FRIENDO_KEY_PEPPER": "p" * 32}
    keys = []
    for model in ("other", "stub"):
        made = friendo("create", "--tenant", "t", "--name", "n", "--model", model, "--redis", valkey_url)
        keys.append(made.stdout.strip())
    options = ("--redis", valkey_url)
    with running_gateway(f"vllm={two[0].url}", options=options, env=env, auth=True) as gateway:
        url, body = f"{gateway.url}/v1/{path}", {"model": "stub", field: "x"}
        answers = [
            httpx.post(
                url, json=body, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=20
            )
            for key in ("fr-none", *keys)
        ]

    assert [401, 403, 200] == [answer.status_code for answer in answers]
