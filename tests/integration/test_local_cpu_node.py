"""One CPU node with the real small model, alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import openai
import psutil
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from gateway.local import cpu_node
from gateway.local.cpu_node import ANSWER_TOKENS

MODULE = (sys.executable, "-m", "gateway.local.cpu_node")
GONE_WITHIN_S = 5.0
ENDS_WITHIN_S = 60.0
BOUND = 40
"""Tokens of an answer to a request that names no limit; the usual bound takes many seconds to reach."""
# A parent of a node, which says the node's ready line and process id and waits.
PARENT = """
import subprocess, sys, time
quiet = {{"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}}
node = subprocess.Popen({command!r}, start_new_session=True, **quiet)
node.stdout.readline()
print(node.pid, flush=True)
time.sleep(60)
"""


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    command = (*MODULE, *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as node:
        try:
            assert node.stdout is not None
            yield node, json.loads(node.stdout.readline())["url"]
        finally:
            node.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running("--port", "0", "--alias", "little", "--context", "2048", "--answer-tokens", str(BOUND)) as (
        _,
        address,
    ):
        yield address


def ask(
    client: openai.OpenAI, messages: list[ChatCompletionMessageParam]
) -> tuple[str, openai.types.CompletionUsage]:
    answer = client.chat.completions.create(model="little", messages=messages, max_tokens=12, temperature=0)
    assert answer.usage is not None
    return answer.choices[0].message.content or "", answer.usage


def test_the_second_turn_reuses_all_but_the_last_token_of_the_first(url: str) -> None:
    """The engine itself reports it: prompt and answer of the first turn are in its cache."""
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What is the capital of France?"}
    ]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        text, first = ask(client, messages)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "Say it again."}]
        _, second = ask(client, messages)

    assert second.prompt_tokens_details is not None
    assert second.prompt_tokens_details.cached_tokens == first.prompt_tokens + first.completion_tokens - 1


def test_interleaved_conversations_each_keep_their_prefix(url: str) -> None:
    """The settings' purpose: a conversation that comes back after another one finds its prompt in RAM."""
    openings = ("Tell me about the sea.", "Tell me about the mountains.")
    dialogues: list[list[ChatCompletionMessageParam]] = [
        [{"role": "user", "content": text}] for text in openings
    ]
    firsts = []
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for dialogue in dialogues:
            text, usage = ask(client, dialogue)
            firsts.append(usage.prompt_tokens + usage.completion_tokens - 1)
            dialogue += [{"role": "assistant", "content": text}, {"role": "user", "content": "And then?"}]
        seconds = [ask(client, dialogue)[1].prompt_tokens_details for dialogue in dialogues]

    assert firsts == [details and details.cached_tokens for details in seconds]


def babble(url: str, **wish: int) -> ChatCompletion:
    """An answer of a model that does not know how to end one."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        return client.chat.completions.create(
            model="little",
            messages=[{"role": "user", "content": "Tell me about the sea."}],
            extra_body={"ignore_eos": True, **wish},
        )


def test_a_request_without_max_tokens_ends_by_itself(url: str) -> None:
    """Long before the context is full: the one slot is another user's next."""
    answer = babble(url)

    assert answer.usage is not None
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", BOUND)


def test_the_usual_bound_is_the_documented_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds if nobody chooses another; that it is kept, the test above shows of a shorter one."""
    monkeypatch.setattr(sys, "argv", ["cpu_node"])

    assert cpu_node._options().answer_tokens == ANSWER_TOKENS == 512


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_request_that_names_more_tokens_gets_more(url: str, name: str) -> None:
    """The bound is a default; what a client asks for is honoured."""
    answer = babble(url, **{name: BOUND + 8})

    assert answer.usage is not None
    assert answer.usage.completion_tokens == BOUND + 8


def test_it_says_how_it_is_and_what_it_serves(url: str) -> None:
    """Probes find health, metrics and the model's name."""
    with (
        urlopen(f"{url}/health") as health,
        urlopen(f"{url}/v1/models") as models,
        urlopen(f"{url}/metrics") as seen,
    ):
        assert json.load(health) == {"status": "ok"}
        assert [model["id"] for model in json.load(models)["data"]] == ["little"]
        assert b"llamacpp:prompt_tokens_total" in seen.read()


def test_it_ends_in_order_on_sigterm() -> None:
    """An orderly end is exit code 0."""
    with running("--context", "256") as (node, _):
        node.send_signal(signal.SIGTERM)
        assert node.wait(timeout=10) == 0


def test_a_taken_port_is_named() -> None:
    """One line, and no second server beside the first."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            (*MODULE, "--port", str(port)),
            capture_output=True,
            text=True,
            timeout=ENDS_WITHIN_S,
            check=False,
        )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"port {port} of 127.0.0.1 is in use; choose another with --port\n"


def test_it_dies_with_its_parent() -> None:
    """A parent that is killed leaves no node behind."""
    command = (sys.executable, "-c", PARENT.format(command=(*MODULE, "--context", "256")))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        node = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)

    until = time.monotonic() + GONE_WITHIN_S
    while node.is_running() and node.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.02)
    assert not node.is_running() or node.status() == psutil.STATUS_ZOMBIE
