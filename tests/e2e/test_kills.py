"""kill -9 of a node, of the gateway and of the store: what was acknowledged stays, the next turn works."""

import signal
from typing import Any

import httpx
import pytest

from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until

SLOW = {"decode_rate": 20.0}
"""Tokens a second: an answer of 40 takes two seconds, long enough to be killed in."""


def say(gateway: Gateway, text: str, **more: Any) -> httpx.Response:
    return httpx.post(
        f"{gateway.url}/v1/chat/completions",
        headers={"x-session-id": "kill"},
        json={"model": "stub", "messages": [{"role": "user", "content": text}], "max_tokens": 5, **more},
        timeout=30,
    )


def events_until_end(gateway: Gateway, text: str, *, after_first: Any) -> list[str]:
    """The data of a streamed answer; `after_first` is called once its first event came."""
    body = {
        "model": "stub",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 40,
        "stream": True,
    }
    lines: list[str] = []
    url, headers = f"{gateway.url}/v1/chat/completions", {"x-session-id": "kill"}
    with httpx.stream("POST", url, headers=headers, json=body, timeout=30) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: "):
                lines.append(line.removeprefix("data: "))
            if len(lines) == 2 and after_first is not None:
                after_first()
                after_first = None
    return lines


def asked(stub: Stub) -> list[str]:
    """The user messages of the last prompt that somebody waited for: a pre-warm asks for one token."""
    bodies = [request["body"] for request in stub.stats()["recent"]]
    spoken = [body["messages"] for body in bodies if body.get("max_tokens") != 1]
    return [message["content"] for message in spoken[-1] if message["role"] == "user"]


def test_node_killed_in_an_answer_is_an_error_and_the_next_turn_goes_to_the_other(valkey: Valkey) -> None:
    """The client is told inside the stream; no acknowledged turn is lost."""
    with running_stub(**SLOW) as one, running_stub(**SLOW) as other:
        nodes = (f"vllm={one.url}", f"vllm={other.url}")
        with running_gateway(*nodes, options=("--redis", valkey.url)) as gateway:
            first = say(gateway, "remember me")
            bound = one if first.headers["x-friendo-node"] in one.url else other
            left = other if bound is one else one

            events = events_until_end(gateway, "tell me a story", after_first=bound.kill)
            then = say(gateway, "still there?")

            assert "error" in events[-1]
            assert "[DONE]" not in events
            assert then.status_code == 200
            assert then.headers["x-friendo-route"] == "failover"
            assert ["remember me", "still there?"] == asked(left)


def test_gateway_killed_in_an_answer_loses_no_acknowledged_turn(valkey: Valkey) -> None:
    """Its lease frees the conversation within seconds; a new gateway goes on where the last turn ended."""
    with running_stub(**SLOW) as stub:
        node, options = f"vllm={stub.url}", ("--redis", valkey.url)
        with running_gateway(node, options=options) as gateway:
            assert say(gateway, "remember me").status_code == 200

            def kill() -> None:
                gateway.process.send_signal(signal.SIGKILL)

            with pytest.raises(httpx.RemoteProtocolError):
                events_until_end(gateway, "tell me a story", after_first=kill)
        with running_gateway(node, options=options) as successor:
            then = say(successor, "still there?")

        assert then.status_code == 200
        assert ["remember me", "still there?"] == asked(stub)
        assert until(lambda: stub.stats()["running"] == 0)


def test_store_killed_between_turns_loses_no_acknowledged_turn(valkey: Valkey) -> None:
    """While it is away a turn is refused clearly; once it is back, so is every turn that was answered."""
    with (
        running_stub() as stub,
        running_gateway(f"vllm={stub.url}", options=("--redis", valkey.url)) as gateway,
    ):
        assert say(gateway, "remember me").status_code == 200
        assert say(gateway, "and me").status_code == 200

        valkey.kill()
        refused = say(gateway, "lost?")
        valkey.start()
        then = say(gateway, "still there?")

        assert (503, "store_unavailable") == (refused.status_code, refused.json()["error"]["code"])
        assert then.status_code == 200
        assert ["remember me", "and me", "still there?"] == asked(stub)


def test_store_killed_in_an_answer_gives_no_clean_end(valkey: Valkey) -> None:
    """A turn that could not be stored is not acknowledged: an error, and no end mark."""
    with (
        running_stub(**SLOW) as stub,
        running_gateway(f"vllm={stub.url}", options=("--redis", valkey.url)) as gateway,
    ):
        assert say(gateway, "remember me").status_code == 200

        events = events_until_end(gateway, "tell me a story", after_first=valkey.kill)
        valkey.start()
        assert until(lambda: say(gateway, "still there?").status_code == 200, within_s=15, every_s=0.5)

        assert "store_unavailable" in events[-1]
        assert "[DONE]" not in events
        assert ["remember me", "still there?"] == asked(stub)
