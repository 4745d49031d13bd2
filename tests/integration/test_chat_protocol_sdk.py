"""The unmodified OpenAI SDK against the gateway: it works, and errors are of its classes."""

import uuid
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.gateway_process import Gateway, Stub, running_gateway

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """As the README has it; no retries, so that a test sees the first answer."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture
def faulty(stub: Stub) -> Iterator[Stub]:
    """The node, whose faults end with the test."""
    yield stub
    stub.set_faults()


def messages(text: str) -> list[ChatCompletionMessageParam]:
    """One message of a user."""
    return [{"role": "user", "content": text}]


def test_whole_answer(client: openai.OpenAI) -> None:
    """Model, usage and all."""
    answer = client.chat.completions.create(model="stub", messages=HELLO)

    assert (answer.model, answer.choices[0].finish_reason) == ("stub", "stop")
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_says_the_same_as_the_whole(client: openai.OpenAI) -> None:
    """Without usage unless it was asked for."""
    whole = client.chat.completions.create(model="stub", messages=HELLO)
    chunks = list(client.chat.completions.create(model="stub", messages=HELLO, stream=True))
    counted = list(
        client.chat.completions.create(
            model="stub", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert whole.choices[0].message.content == text
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert counted[-1].usage is not None
    assert whole.usage is not None
    assert whole.usage.total_tokens == counted[-1].usage.total_tokens
    assert counted[-1].choices == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("where", ["header", "body"])
def test_conversation_by_header_and_by_body(client: openai.OpenAI, where: str, *, stream: bool) -> None:
    """Only what is new is sent."""
    name = uuid.uuid4().hex
    headers = {"x-session-id": name} if where == "header" else None
    body = {"conversation": name} if where == "body" else None
    said = []
    for text in ("My name is Ada", "What is my name?"):
        if stream:
            chunks = client.chat.completions.create(
                model="stub", messages=messages(text), stream=True, extra_headers=headers, extra_body=body
            )
            said.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
        else:
            answer = client.chat.completions.create(
                model="stub", messages=messages(text), extra_headers=headers, extra_body=body
            )
            said.append(answer.choices[0].message.content or "")

    assert said[1] == "Your name is Ada."


def test_streaming_helper_accumulates(client: openai.OpenAI) -> None:
    """`chat.completions.stream` validates every chunk."""
    with client.chat.completions.stream(model="stub", messages=HELLO) as stream:
        final = stream.get_final_completion()

    assert final.choices[0].message.content


async def test_asynchronous_client(gateway: Gateway) -> None:
    """The same from an event loop."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(model="stub", messages=HELLO, stream=True)
        text = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert "".join(text)


def test_models_are_listed(client: openai.OpenAI) -> None:
    """And one can be looked up."""
    assert ["stub"] == [model.id for model in client.models.list()]
    assert client.models.retrieve("stub").id == "stub"


def test_errors_have_their_classes(client: openai.OpenAI) -> None:
    """With code, parameter and request id where the SDK looks for them."""
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="absent", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="stub", messages=[])
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="stub", messages=messages("word " * 9000))
    stored = {"x-session-id": uuid.uuid4().hex}
    client.chat.completions.create(model="stub", messages=HELLO, extra_headers=stored)
    dialogue: list[ChatCompletionMessageParam] = [{"role": "assistant", "content": "never said"}, *HELLO]
    with pytest.raises(openai.ConflictError) as foreign:
        client.chat.completions.create(model="stub", messages=dialogue, extra_headers=stored)

    assert ("model_not_found", "model") == (unknown.value.code, unknown.value.param)
    assert unknown.value.request_id
    assert empty.value.param == "messages"
    assert long.value.code == "context_length_exceeded"
    assert foreign.value.code == "conversation_mismatch"


def test_failing_node_is_an_internal_server_error(client: openai.OpenAI, faulty: Stub) -> None:
    """By its status before the first byte, by an event afterwards."""
    faulty.set_faults({"kind": "status", "status": 503, "times": 1})
    with pytest.raises(openai.InternalServerError) as busy:
        client.chat.completions.create(model="stub", messages=HELLO)
    faulty.set_faults({"kind": "cut_after_chunks", "chunks": 3, "times": 1})
    with pytest.raises(openai.APIError, match="node failed"):
        list(client.chat.completions.create(model="stub", messages=HELLO, stream=True))

    assert busy.value.status_code == 503
    assert busy.value.code == "server_is_overloaded"


def test_sdk_retries_what_it_should(client: openai.OpenAI, faulty: Stub) -> None:
    """A busy node, twice; the third attempt is answered, and stored once."""
    faulty.set_faults({"kind": "status", "status": 429, "times": 2, "headers": {"retry-after": "0"}})
    before = faulty.stats()["requests"]
    headers = {"x-session-id": uuid.uuid4().hex}
    patient = client.with_options(max_retries=2)
    answer = patient.chat.completions.create(model="stub", messages=HELLO, extra_headers=headers)
    patient.chat.completions.create(model="stub", messages=messages("next"), extra_headers=headers)

    assert answer.choices[0].message.content
    assert before + 4 == faulty.stats()["requests"]
    assert ["user", "assistant", "user"] == [message["role"] for message in faulty.prompts()[-1]]


def test_key_is_asked_for(stub: Stub, valkey_url: str) -> None:
    """With keys on, a wrong one is an AuthenticationError."""
    env = {"FRIENDO_KEY_PEPPER": "p" * 32}
    with (
        running_gateway(f"vllm={stub.url}", options=("--redis", valkey_url), env=env, auth=True) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="fr-wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.chat.completions.create(model="stub", messages=HELLO)

    assert refused.value.code == "invalid_api_key"
