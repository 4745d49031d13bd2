"""`/v1/conversations` through OpenAI's own SDK, unmodified, over a real gateway and each store."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.conversations import Conversation, Message
from openai.types.responses import ResponseFunctionToolCallItem, ResponseFunctionToolCallOutputItem

from tests.gateway_process import Gateway, Stub, running_gateway

ITEMS: list[Any] = [
    {"type": "message", "role": "developer", "content": "You are Eli."},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "My name is Ada"}]},
    {"role": "assistant", "content": "Hello Ada"},
]
CALL: list[Any] = [
    {"role": "user", "content": "roll"},
    {"type": "function_call", "call_id": "call_1", "name": "dice", "arguments": '{"sides":6}'},
]
RESULT: list[Any] = [
    {"type": "function_call_output", "call_id": "call_1", "output": "6"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "A six", "annotations": []}]},
]


@pytest.fixture(scope="module")
def gateway(stub: Stub, store_url: str) -> Iterator[Gateway]:
    """A gateway over each store."""
    with running_gateway(f"vllm={stub.url}", options=("--redis", store_url)) as process:
        yield process


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The SDK, which retries nothing, so that every status is seen."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture
def conversation(client: openai.OpenAI) -> Conversation:
    """A conversation with a persona and one turn."""
    return client.conversations.create(items=ITEMS, metadata={"character": "eli", "topic": "names"})


def texts(items: list[Any]) -> list[str]:
    return [item.content[0].text for item in items if isinstance(item, Message)]


def test_a_conversation_is_created_retrieved_changed_and_deleted(client: openai.OpenAI) -> None:
    """With every field that the API publishes."""
    created = client.conversations.create(metadata={"topic": "names"})
    changed = client.conversations.update(created.id, metadata={"topic": "places", "mood": "calm"})
    found = client.conversations.retrieve(created.id)
    deleted = client.conversations.delete(created.id)

    assert created.id.startswith("conv_")
    assert ("conversation", {"topic": "names"}) == (created.object, created.metadata)
    assert created.created_at > 1_600_000_000
    assert changed == found
    assert {"topic": "places", "mood": "calm"} == found.metadata
    assert created.created_at == found.created_at
    assert (created.id, True, "conversation.deleted") == (deleted.id, deleted.deleted, deleted.object)
    with pytest.raises(openai.NotFoundError) as caught:
        client.conversations.retrieve(created.id)
    assert "conversation_not_found" == caught.value.code
    assert "conversation" == caught.value.param


def test_metadata_can_be_empty(client: openai.OpenAI) -> None:
    """None and nothing are the same."""
    created = client.conversations.create()

    assert {} == created.metadata
    assert {} == client.conversations.update(created.id, metadata=None).metadata


def test_a_chat_goes_on_with_what_was_created(
    client: openai.OpenAI, conversation: Conversation, stub: Stub
) -> None:
    """Its items are the beginning of the prompt, its persona included."""
    answer = client.chat.completions.create(
        model="stub",
        messages=[{"role": "user", "content": "What is my name?"}],
        extra_body={"conversation": conversation.id},
    )
    prompt = [(message["role"], message["content"]) for message in stub.prompts()[-1]]
    listed = client.conversations.items.list(conversation.id, order="asc").data

    assert "Your name is Ada." == answer.choices[0].message.content
    assert [
        ("developer", "You are Eli."),
        ("user", "My name is Ada"),
        ("assistant", "Hello Ada"),
        ("user", "What is my name?"),
    ] == prompt
    assert [text for _, text in prompt] == texts(listed)[:4]
    assert answer.choices[0].message.content == texts(listed)[-1]


def test_items_are_listed_page_by_page(client: openai.OpenAI, conversation: Conversation) -> None:
    """Newest first unless told otherwise; each page says where it ends."""
    more: list[Any] = [{"role": "user", "content": f"{number}"} for number in range(20)]
    client.conversations.items.create(conversation.id, items=more)
    everything = [
        item.id or "" for item in client.conversations.items.list(conversation.id, order="asc", limit=7)
    ]
    newest = client.conversations.items.list(conversation.id)
    second = client.conversations.items.list(conversation.id, after=newest.last_id or "")

    assert 23 == len(everything) == len(set(everything))
    assert 20 == len(newest.data)
    assert newest.has_more
    assert not second.has_more
    assert everything[::-1] == [item.id for item in [*newest.data, *second.data]]
    assert newest.data[-1].id == newest.last_id


def test_items_of_every_kind_come_back(client: openai.OpenAI, conversation: Conversation) -> None:
    """Messages, calls and their results, each in the SDK's own type and complete."""
    added = client.conversations.items.create(conversation.id, items=CALL)
    answered = client.conversations.items.create(conversation.id, items=RESULT)
    items = [*added.data, *answered.data]
    question, call, result, answer = items

    assert isinstance(question, Message)
    assert isinstance(call, ResponseFunctionToolCallItem)
    assert isinstance(result, ResponseFunctionToolCallOutputItem)
    assert isinstance(answer, Message)
    assert ("dice", '{"sides":6}', "call_1") == (call.name, call.arguments, call.call_id)
    assert ("6", "call_1") == (result.output, result.call_id)
    assert ["input_text", "output_text"] == [question.content[0].type, answer.content[0].type]
    assert ["completed"] * 4 == [item.status for item in items]  # type: ignore[union-attr] # of these four kinds
    assert (added.data[0].id, added.data[-1].id, False) == (added.first_id, added.last_id, added.has_more)
    for item in items:
        assert item == client.conversations.items.retrieve(item.id or "", conversation_id=conversation.id)


def test_ids_stay_when_the_dialogue_goes_on(client: openai.OpenAI, conversation: Conversation) -> None:
    """Also those of a turn that waits for its tool's result."""
    client.conversations.items.create(conversation.id, items=CALL)
    before = [item.id for item in client.conversations.items.list(conversation.id, order="asc")]
    client.conversations.items.create(conversation.id, items=RESULT)
    after = [item.id for item in client.conversations.items.list(conversation.id, order="asc")]

    assert before == after[: len(before)]
    assert 2 == len(after) - len(before)


def test_an_item_is_not_deleted_alone(client: openai.OpenAI, conversation: Conversation) -> None:
    """The refusal says what to do instead."""
    (newest,) = client.conversations.items.list(conversation.id, limit=1).data
    with pytest.raises(openai.BadRequestError, match="fork") as caught:
        client.conversations.items.delete(newest.id or "", conversation_id=conversation.id)

    assert "item_delete_unsupported" == caught.value.code


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"metadata": {f"k{number}": "v" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 5}}, "metadata.k"),
        ({"metadata": "k"}, "metadata"),
        ({"items": [{"role": "user", "content": "a"}] * 21}, "items"),
        ({"items": {"role": "user"}}, "items"),
        ({"items": ["a"]}, "items[0]"),
        ({"items": [{"type": "item_reference", "id": "msg_1"}]}, "items[0].type"),
        ({"items": [{"role": "user", "content": "a"}, {"role": "critic", "content": "a"}]}, "items[1].role"),
        ({"items": [{"role": "user", "content": [{"type": "input_text"}]}]}, "items[0].content[0].text"),
        ({"items": [{"type": "function_call_output", "call_id": "c", "output": "6"}]}, "messages"),
        ({"user": 5}, "user"),
        ({"user": "u" * 257}, "user"),
    ],
)
def test_what_is_out_of_bounds_is_named(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    """By the parameter that is wrong."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/conversations", body=fields, cast_to=object)

    assert param == caught.value.param


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"order": "up"}, "order"),
    ],
)
def test_a_page_has_bounds(
    client: openai.OpenAI, conversation: Conversation, query: dict[str, Any], param: str
) -> None:
    """As the API has them."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.conversations.items.list(conversation.id, extra_query=query)

    assert param == caught.value.param


def test_what_is_not_there_is_not_found(client: openai.OpenAI, conversation: Conversation) -> None:
    """Neither conversation nor item; an item of another conversation is none of this one."""
    other = client.conversations.create(items=ITEMS)
    (item,) = client.conversations.items.list(other.id, limit=1).data
    missing = f"conv_{uuid.uuid4().hex}"
    with pytest.raises(openai.NotFoundError):
        client.conversations.update(missing, metadata={})
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.list(missing)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.create(missing, items=ITEMS)
    with pytest.raises(openai.NotFoundError):
        client.conversations.delete(missing)
    with pytest.raises(openai.NotFoundError) as caught:
        client.conversations.items.retrieve(item.id or "", conversation_id=conversation.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.list(conversation.id, after="msg_0_0_0123456789abcdef")

    assert ("not_found", "item_id") == (caught.value.code, caught.value.param)


def test_a_conversation_that_began_by_talking_is_one_as_well(client: openai.OpenAI) -> None:
    """Under the id that the client gave it."""
    named = f"my-{uuid.uuid4().hex}"
    client.chat.completions.create(
        model="stub", messages=[{"role": "user", "content": "hi"}], extra_body={"conversation": named}
    )

    assert named == client.conversations.retrieve(named).id
    assert 2 == len(client.conversations.items.list(named).data)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"items":' + b"[" * 5000, 400, "nested too deeply"),
        (b"\xff", 400, "not valid"),
        (b'{"items":"' + b"x" * (17 * 1024 * 1024) + b'"}', 413, "larger than"),
    ],
)
def test_bodies_that_make_no_sense_are_refused(gateway: Gateway, body: bytes, status: int, says: str) -> None:
    """In OpenAI's envelope, with all four fields."""
    answer = httpx.post(f"{gateway.url}/v1/conversations", content=body, trust_env=False)

    assert status == answer.status_code
    assert {"message", "type", "param", "code"} == set(answer.json()["error"])
    assert says in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"]
