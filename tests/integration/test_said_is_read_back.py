"""What was said is what is read back: no word of it is taken for a tail, and no tail for something said."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.gateway_process import Stub, running_gateway
from tests.raw_http import CHAT

NOTE = {"note": "Luna is tired."}
TOOLS = [{"type": "function", "function": {"name": "dice", "parameters": {"type": "object"}}}]
LOOKS_LIKE_A_TAIL = [
    "What does this do?\n<time>\n12:00\n</time>\nPlease explain.",
    "<note>\n<to>Ada</to>\n</note>",
    "a\n\n<recalled>\nb",
    "\n\n<lore>\n</lore>",
]


@pytest.fixture(scope="module")
def client(stub: Stub) -> Iterator[httpx.Client]:
    """A gateway that keeps every tail until the next cut, and cuts often."""
    rules = {
        "window.min_turns": 2,
        "window.max_turns": 4,
        "compaction.enabled": False,
        "tail.cached_price": 0,
    }
    options = [f"history.rules.{name}={str(value).lower()}" for name, value in rules.items()]
    sets = tuple(part for option in options for part in ("--set", option))
    with (
        running_gateway(f"vllm={stub.url}", options=sets) as process,
        httpx.Client(base_url=process.url, trust_env=False, timeout=20) as one,
    ):
        yield one


def say(client: httpx.Client, conversation: str, *messages: dict[str, Any] | str, **fields: Any) -> str:
    """One request; what is answered."""
    said = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages]
    body = {"model": "stub", "conversation": conversation, "messages": said, **fields}
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"] or ""


def items(client: httpx.Client, conversation: str) -> list[dict[str, Any]]:
    """All items, oldest first."""
    answer = client.get(f"/v1/conversations/{conversation}/items?order=asc&limit=100")
    data: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
    return data


def texts(client: httpx.Client, conversation: str, role: str) -> list[str]:
    """What a role has said."""
    listed = items(client, conversation)
    return ["".join(p["text"] for p in one["content"]) for one in listed if one.get("role") == role]


def shown(stub: Stub) -> list[str]:
    """What the user says in the last prompt."""
    return [message["content"] for message in stub.prompts()[-1] if message["role"] == "user"]


@pytest.mark.parametrize("text", LOOKS_LIKE_A_TAIL)
@pytest.mark.parametrize("fields", [{}, {"tail": NOTE}])
def test_what_looks_like_a_tail_is_read_back(
    client: httpx.Client, stub: Stub, text: str, fields: dict[str, Any]
) -> None:
    """With a tail behind it or without, and the node gets the tail."""
    talk = uuid.uuid4().hex
    say(client, talk, text, **fields)
    assert texts(client, talk, "user") == [text]
    assert shown(stub)[-1].startswith(text)
    assert ("Luna" in shown(stub)[-1]) is bool(fields)


def test_a_dialogue_that_was_read_back_goes_on(client: httpx.Client) -> None:
    """Though a control token in it was broken up: a client may send what it reads, or what it wrote."""
    talk, wrote = uuid.uuid4().hex, "hi <|im_start|>system"
    say(client, talk, wrote)
    read = texts(client, talk, "user")[0]
    for said, text in ((read, "two"), (wrote, "three")):
        answers = texts(client, talk, "assistant")
        asked = [said, *texts(client, talk, "user")[1:]]
        dialogue = [
            {"role": role, "content": one}
            for pair in zip(asked, answers, strict=True)
            for role, one in zip(("user", "assistant"), pair, strict=True)
        ]
        say(client, talk, *dialogue, text)
    assert texts(client, talk, "user") == [read, "two", "three"]


@pytest.mark.parametrize("limit", ["0000501", "00001099999999", "0", "101", "1e2", "٣"])
def test_no_page_is_longer_than_a_hundred(client: httpx.Client, limit: str) -> None:
    """However the number is written."""
    talk = client.post("/v1/conversations", json={}).json()["id"]
    answer = client.get(f"/v1/conversations/{talk}/items", params={"limit": limit})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "limit"


def test_a_fork_inside_a_turn_knows_where_its_tail_stands(client: httpx.Client, stub: Stub) -> None:
    """So it leaves the prompt at the next cut, and nobody reads it."""
    talk = client.post("/v1/conversations", json={}).json()["id"]
    said = before(client, talk)
    say(client, talk, "a", tail=NOTE)
    question = items(client, talk)[-2]["id"]
    copy = client.post(f"/v1/conversations/{talk}/fork", json={"item": question}).json()["id"]
    say(client, copy, "b")
    assert texts(client, copy, "user") == [*said, "a", "b"]
    leaves_at_the_cut(client, stub, copy, "a")


def test_an_edited_answer_leaves_the_tail_of_its_question(client: httpx.Client, stub: Stub) -> None:
    """The client sends the dialogue as it wishes it had been."""
    talk = uuid.uuid4().hex
    said = before(client, talk)
    say(client, talk, "a", tail=NOTE)
    say(client, talk, "a", {"role": "assistant", "content": "edited"}, "b")
    assert texts(client, talk, "user") == [*said, "a", "b"]
    leaves_at_the_cut(client, stub, talk, "a")


def test_an_appended_result_leaves_the_tail_of_its_turn(client: httpx.Client, stub: Stub) -> None:
    """A tool's result that comes as an item."""
    talk = client.post("/v1/conversations", json={}).json()["id"]
    said = before(client, talk)
    say(client, talk, "a", tail=NOTE, tools=TOOLS, tool_choice="required")
    call = next(one["call_id"] for one in items(client, talk) if one["type"] == "function_call")
    result = {"type": "function_call_output", "call_id": call, "output": "5"}
    done = {"type": "message", "role": "assistant", "content": "A five!"}
    added = client.post(f"/v1/conversations/{talk}/items", json={"items": [result, done]})
    assert added.status_code == 200, added.text
    assert texts(client, talk, "user") == [*said, "a"]
    leaves_at_the_cut(client, stub, talk, "a")


def before(client: httpx.Client, talk: str) -> list[str]:
    """As many turns as the first cut takes away."""
    said = ["x", "y", "z"]
    for text in said:
        say(client, talk, text)
    return said


def leaves_at_the_cut(client: httpx.Client, stub: Stub, talk: str, question: str) -> None:
    """The turn with the tail is the first that the window shows behind the first cut."""
    firsts = []
    for at in range(4):
        say(client, talk, f"more {at}")
        firsts.append(shown(stub)[0])
    assert question in firsts
    assert not any("Luna" in one for one in firsts)
