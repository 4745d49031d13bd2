"""A question in other words than the fact was told in finds it, through a gateway and a node for vectors."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until

FACT = "We adopted a little dog at last, I called him Biscuit."
QUESTION = "How did I christen our puppy?"
EMBEDDINGS = "/v1/embeddings"
SETTINGS = (
    *("--set", "history.rules.window={min_turns: 2, max_turns: 4}"),
    *("--set", "history.rules.compaction.enabled=false", "--set", "history.upkeep.prewarm=false"),
    *(
        "--set",
        "history.rules.recall.meaning.model=words",
        "--set",
        "history.rules.recall.meaning.stands_out=0.8",
    ),
    # A busy machine is no reason to be late here; the test of the deadline has its own.
    *("--set", "history.rules.recall.meaning.wait_s=5", "--set", "history.recall_cache.wait_s=5"),
)
numbers = itertools.count()


@pytest.fixture(scope="module")
def chats() -> Iterator[Stub]:
    with running_stub(engine="openai", model="stub") as stub:
        yield stub


@pytest.fixture(scope="module")
def words() -> Iterator[Stub]:
    """A node that serves vectors, under a model of its own."""
    with running_stub(engine="openai", model="words", embedding_size=512) as stub:
        yield stub


def started(chats: Stub, words: Stub, *options: str) -> Any:
    nodes = (f"openai={chats.url}", f"openai={words.url}")
    return running_gateway(*nodes, options=(*SETTINGS, *options))


@pytest.fixture(scope="module")
def gateway(chats: Stub, words: Stub) -> Iterator[Gateway]:
    with started(chats, words) as running:
        yield running


@pytest.fixture(autouse=True)
def well(words: Stub) -> Iterator[None]:
    yield
    words.set_faults()


def events(gateway: Gateway, name: str) -> int:
    return int(httpx.get(f"{gateway.admin_url}/admin/cache").json()["events"].get(name, 0))


def say(gateway: Gateway, conversation: str, text: str) -> None:
    body = {"model": "stub", "conversation": conversation, "messages": [{"role": "user", "content": text}]}
    httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30).raise_for_status()


def talked(gateway: Gateway, *, turns: int = 20) -> str:
    """A dialogue whose fact has long left the window."""
    conversation = f"talk-{next(numbers)}"
    say(gateway, conversation, FACT)
    for turn in range(turns):
        say(gateway, conversation, f"Today number{turn} was about topic{turn} and weather{turn}.")
    return conversation


def prompt_for(chats: Stub, gateway: Gateway, conversation: str, question: str = QUESTION) -> str:
    say(gateway, conversation, question)
    return str(chats.prompts()[-1][-1]["content"])


def asked_for(words: Stub) -> list[Any]:
    recent = words.stats()["recent"]
    return [one["body"]["input"] for one in recent if one["path"] == EMBEDDINGS]


def test_a_fact_comes_back_that_was_told_in_other_words(chats: Stub, gateway: Gateway) -> None:
    before = events(gateway, "embedded_turns")
    conversation = talked(gateway)
    assert until(lambda: events(gateway, "embedded_turns") - before >= 15)

    prompt = prompt_for(chats, gateway, conversation)

    assert prompt.startswith(f"{QUESTION}\n\n<recalled>\n")
    assert FACT in prompt


def test_without_a_model_for_it_words_are_all_there_is(chats: Stub, words: Stub) -> None:
    with started(chats, words, "--set", "history.rules.recall.meaning.model=") as running:
        conversation = talked(running)

        assert prompt_for(chats, running, conversation) == QUESTION
        assert events(running, "embedded_turns") == 0


def test_a_node_that_is_late_delays_nobody_beyond_the_deadline(chats: Stub, words: Stub) -> None:
    """Words are still there."""
    with started(chats, words, "--set", "history.rules.recall.meaning.wait_s=0.05") as running:
        conversation = talked(running)
        assert until(lambda: events(running, "embedded_turns") >= 15)
        words.set_faults({"path": EMBEDDINGS, "kind": "silence"})

        assert FACT not in prompt_for(chats, running, conversation)
        assert FACT in prompt_for(chats, running, conversation, "What did we call our little dog?")
        assert events(running, "question_late") == 2


def test_a_node_that_fails_costs_a_message_nothing(chats: Stub, words: Stub, gateway: Gateway) -> None:
    """Nor does a breaker open: vectors say nothing of chats. What is lacking is made some turns later."""
    words.set_faults({"path": EMBEDDINGS, "kind": "status", "status": 500})
    conversation = talked(gateway)
    assert until(lambda: events(gateway, "embedding_failed") >= 1)
    made = events(gateway, "embedded_turns")

    words.set_faults()
    for turn in range(40):
        say(gateway, conversation, f"And then topic{turn} came.")

    assert until(lambda: events(gateway, "embedded_turns") - made >= 40)
    assert FACT in prompt_for(chats, gateway, conversation)


def test_small_talk_asks_no_node(words: Stub, gateway: Gateway) -> None:
    conversation = talked(gateway)
    assert until(lambda: events(gateway, "embedded_turns") >= 15)

    say(gateway, conversation, "I had soup for lunch and it rained.")

    assert "I had soup for lunch and it rained." not in asked_for(words)


def test_vectors_outlive_a_gateway_and_go_with_their_conversation(
    chats: Stub, words: Stub, valkey: Valkey
) -> None:
    """The next one reads them: no turn is sent to the node again. Erased, no key is left."""
    store = ("--redis", valkey.url)
    with started(chats, words, *store) as first:
        conversation = talked(first)
        assert until(lambda: events(first, "embedded_turns") >= 15)
    with started(chats, words, *store) as second:
        sent = words.stats()["requests"]

        assert FACT in prompt_for(chats, second, conversation)
        assert (words.stats()["requests"] - sent, asked_for(words)[-1]) == (1, [QUESTION])
        assert keys_of(valkey, conversation)
        httpx.delete(f"{second.url}/v1/conversations/{conversation}").raise_for_status()
        assert keys_of(valkey, conversation) == []


def test_a_real_engine_makes_the_vectors(chats: Stub) -> None:
    """llama.cpp. Vectors of so small a chat model tell little: what is tested is that they come."""
    command = [sys.executable, "-m", "gateway.local.cpu_node", "--port", "0", "--embeddings"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            options = (*SETTINGS, "--set", "history.rules.recall.meaning.model=smollm2")
            with running_gateway(f"openai={chats.url}", f"openai={url}", options=options) as running:
                conversation = talked(running)
                assert until(lambda: events(running, "embedded_turns") >= 15, within_s=60)

                say(running, conversation, QUESTION)

                failed = [f"question_{how}" for how in ("late", "failed", "without_node")]
                assert {name: events(running, name) for name in failed} == dict.fromkeys(failed, 0)
                node = next(one for one in nodes_of(running) if "smollm2" in one["models"])
                assert node["healthy"], node
        finally:
            process.kill()


def nodes_of(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{gateway.admin_url}/admin/nodes").json()["data"]
    return found


def keys_of(valkey: Valkey, conversation: str) -> list[bytes]:
    with Redis.from_url(valkey.url) as client:
        return list(client.keys(f"*{conversation}}}*"))
