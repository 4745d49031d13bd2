"""What stands beside OpenAI's conversation objects: answers anew, siblings, forks, memory on demand."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.gateway_process import Gateway, Stub, running_gateway

OPTIONS = ("--set", "history.rules.window.min_turns=2", "--set", "history.rules.window.max_turns=4")
QUIET = ("--set", "history.rules.compaction.lead_turns=0", "--set", "history.upkeep.queue_limit=0")
"""Nothing is done in the background, so that what a test asks for is all that happens."""


@pytest.fixture(scope="module")
def gateway(stub: Stub, store_url: str) -> Iterator[Gateway]:
    """A gateway with a small window over each store."""
    options = ("--redis", store_url, *OPTIONS, *QUIET)
    with running_gateway(f"vllm={stub.url}", options=options) as process:
        yield process


class Talk:
    """One conversation."""

    def __init__(self, gateway: Gateway, stub: Stub) -> None:
        self.stub = stub
        self.openai = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
        self.id = self.openai.conversations.create(metadata={"topic": "t"}).id
        self.http = httpx.Client(
            base_url=f"{gateway.url}/v1/conversations/{self.id}", trust_env=False, timeout=20
        )

    def close(self) -> None:
        """Hang up."""
        self.openai.close()
        self.http.close()

    def say(self, text: str) -> str:
        """One message; what is answered."""
        answer = self.openai.chat.completions.create(
            model="stub",
            messages=[{"role": "user", "content": text}],
            extra_body={"conversation": self.id},
        )
        return answer.choices[0].message.content or ""

    def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """One of the actions, which has to succeed."""
        answer = self.http.post(f"/{action}", json=fields)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def refused(self, action: str, **fields: Any) -> tuple[int, str | None]:
        """The status and the parameter of a refusal."""
        answer = self.http.post(f"/{action}", json=fields)
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["error"]["param"]

    def items(self, conversation_id: str = "") -> list[Any]:
        """All items, oldest first."""
        return list(self.openai.conversations.items.list(conversation_id or self.id, order="asc"))

    def texts(self, conversation_id: str = "") -> list[str]:
        """What was said."""
        return [item.content[0].text for item in self.items(conversation_id)]

    def siblings(self, **query: Any) -> list[tuple[int, bool, str]]:
        """Number, whether it is active, and what was answered."""
        answer = self.http.get("/siblings", params=query)
        assert answer.status_code == 200, answer.text
        return [
            (one["sibling"], one["active"], one["items"][-1]["content"][0]["text"])
            for one in answer.json()["data"]
        ]

    def prompt(self) -> list[str]:
        """What the node was asked last."""
        return [message["content"] for message in self.stub.prompts()[-1]]


@pytest.fixture
def talk(gateway: Gateway, stub: Stub) -> Iterator[Talk]:
    """A new conversation."""
    stub.set_faults()
    one = Talk(gateway, stub)
    yield one
    one.close()


def test_the_last_message_is_answered_anew(talk: Talk) -> None:
    """From the same prompt; the old answer stays as a sibling, and the new one is what goes on."""
    talk.say("one")
    first = talk.say("My name is Ada")
    before = talk.prompt()
    again = talk.ask("regenerate", model="stub", seed=7)
    asked = talk.prompt()
    talk.say("two")

    assert "chat.completion" == again["object"]
    assert before == asked
    second = again["choices"][0]["message"]["content"]
    assert talk.prompt()[-3:] == ["My name is Ada", second, "two"]
    assert [(1, False, first), (2, True, second)] == talk.siblings(turn=1)


def test_an_answer_anew_can_be_streamed(talk: Talk) -> None:
    """As a chat completion, to its end and with its usage."""
    talk.say("one")
    body = {"model": "stub", "stream": True, "stream_options": {"include_usage": True}}
    with talk.http.stream("POST", "/regenerate", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])

    assert 200 == answer.status_code
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "data: [DONE]" == lines[-1]
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert {"chat.completion.chunk"} == {chunk["object"] for chunk in chunks}
    assert said == talk.texts()[-1]
    assert talk.id == answer.headers["x-session-id"]


def test_what_was_created_unanswered_is_answered(talk: Talk) -> None:
    """Items first, then a model: the way to begin with somebody else's words."""
    talk.openai.conversations.items.create(talk.id, items=[{"role": "user", "content": "My name is Ada"}])
    talk.ask("regenerate", model="stub")

    assert 2 == len(talk.items())
    assert [1] == [number for number, _, _ in talk.siblings()]


def test_a_failed_answer_anew_changes_nothing(talk: Talk) -> None:
    """The old answer stands."""
    talk.say("one")
    before = talk.items()
    talk.stub.set_faults({"kind": "status", "status": 400})
    status, _ = talk.refused("regenerate", model="stub")
    talk.stub.set_faults()

    assert 400 == status
    assert before == talk.items()
    assert 1 == len(talk.siblings())


def test_an_earlier_answer_is_selected_and_the_present_one_kept(talk: Talk) -> None:
    """There and back; the numbers keep their meaning, and the next prompt has what was selected."""
    first = talk.say("one")
    second = talk.ask("regenerate", model="stub")["choices"][0]["message"]["content"]
    chosen = talk.ask("select", sibling=1)
    talk.say("two")
    went_on = talk.prompt()
    talk.ask("select", sibling=2, turn=0)
    other = talk.texts()
    talk.ask("select", sibling=1, item=talk.items()[0].id)

    assert [True, False] == [one["active"] for one in chosen["data"]]
    assert ["one", first, "two"] == went_on
    assert ["one", second] == other
    assert ["one", first, "two"] == talk.texts()[:3]
    assert [(1, True, first), (2, False, second)] == talk.siblings(turn=0)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "sibling"),
        ({"sibling": 0}, "sibling"),
        ({"sibling": 3}, "sibling"),
        ({"sibling": True}, "sibling"),
        ({"sibling": 1, "turn": 5}, "turn"),
        ({"sibling": 1, "turn": -1}, "turn"),
        ({"sibling": 1, "turn": 0, "item": "msg_0_0_0123456789abcdef"}, "turn"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(talk: Talk, fields: dict[str, Any], param: str) -> None:
    """And changes nothing."""
    talk.say("one")
    before = talk.items()

    assert (400, param) == talk.refused("select", **fields)
    assert before == talk.items()


def test_nothing_to_answer_is_said(talk: Talk) -> None:
    """An empty conversation, one that is not there, messages where there may be none, no model."""
    assert (400, "conversation") == talk.refused("regenerate", model="stub")
    talk.say("one")
    assert (400, "messages") == talk.refused("regenerate", model="stub", messages=[])
    assert (400, "model") == talk.refused("regenerate")
    assert (404, "model") == talk.refused("regenerate", model="nobody")
    address = str(talk.http.base_url).replace(talk.id, f"{talk.id}x")
    missing = httpx.post(f"{address}regenerate", json={"model": "stub"}, trust_env=False)
    assert (404, "conversation_not_found") == (missing.status_code, missing.json()["error"]["code"])
    assert 405 == talk.http.get("/regenerate").status_code


def test_a_fork_is_a_conversation_of_its_own(talk: Talk) -> None:
    """As far as a turn, an item, or all of it; what happens to one does not happen to the other."""
    for text in ("one", "two", "three"):
        talk.say(text)
    everything, question = talk.texts(), talk.items()[2]
    whole = talk.ask("fork", metadata={"topic": "fork"})
    first = talk.ask("fork", turn=0)
    inside = talk.ask("fork", item=question.id)
    talk.openai.conversations.delete(talk.id)

    assert [3, 1, 2] == [one["turns"] for one in (whole, first, inside)]
    assert {"topic": "fork"} == whole["metadata"]
    assert {"topic": "t"} == talk.openai.conversations.retrieve(first["id"]).metadata
    assert everything == talk.texts(whole["id"])
    assert everything[:2] == talk.texts(first["id"])
    assert everything[:3] == talk.texts(inside["id"])


def test_a_fork_finds_the_prefix_of_what_it_comes_from(talk: Talk) -> None:
    """Its first turn is as warm as the next one of the other would have been."""
    for number in range(3):
        talk.say(f"{'long ' * 40}{number}")
    fork = talk.ask("fork")
    answer = talk.openai.chat.completions.create(
        model="stub",
        messages=[{"role": "user", "content": "short"}],
        extra_body={"conversation": fork["id"]},
    )

    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    cached = answer.usage.prompt_tokens_details.cached_tokens or 0
    assert cached > 0.8 * answer.usage.prompt_tokens


def test_opening_a_chat_makes_its_prefix_resident(talk: Talk, stub: Stub) -> None:
    """With the model that answered last, if none is named; and it says what it cost, not where."""
    assert {"warmed": False, "prompt_tokens": 0} == {
        name: value
        for name, value in talk.ask("warm", model="stub").items()
        if name in ("warmed", "prompt_tokens")
    }
    talk.say("one")
    before = stub.stats()["requests"]
    warm = talk.ask("warm")
    again = talk.ask("warm", model="stub", chat_template_kwargs={"a": 1})

    assert 2 == stub.stats()["requests"] - before
    assert warm["warmed"]
    assert warm["prompt_tokens"] > 0
    assert again["cached_tokens"] > 0
    assert {"id", "object", "warmed", "prompt_tokens", "cached_tokens"} == set(warm)
    assert 2 == len(talk.items())


def test_the_memory_that_is_due_is_made_now(talk: Talk) -> None:
    """Once; then none is due."""
    early = talk.ask("compact", model="stub")
    for number in range(6):
        talk.say(f"message {number}")
    made = talk.ask("compact")
    again = talk.ask("compact")

    assert "not_due" == early["outcome"]
    assert "kept" == made["outcome"]
    assert made["turns_covered"] > 0
    assert 6 == made["turns"]
    assert "not_due" == again["outcome"]
    assert made["turns_covered"] == again["turns_covered"]


def test_an_answer_can_be_rated(talk: Talk) -> None:
    """Up, down, with a comment, or not at all any more."""
    talk.say("one")
    question, answer = (item.id for item in talk.items())

    up = talk.ask(f"items/{answer}/feedback", rating="up", comment="lovely")
    gone = talk.ask(f"items/{answer}/feedback", rating=None)
    assert ("up", "lovely", answer) == (up["rating"], up["comment"], up["item_id"])
    assert gone["rating"] is None
    assert (400, "rating") == talk.refused(f"items/{answer}/feedback", rating="meh")
    assert (400, "rating") == talk.refused(f"items/{answer}/feedback")
    assert (400, "comment") == talk.refused(f"items/{answer}/feedback", rating="up", comment="x" * 2001)
    assert (400, "item_id") == talk.refused(f"items/{question}/feedback", rating="up")
    assert (404, "item_id") == talk.refused("items/msg_9_9_0123456789abcdef/feedback", rating="up")
