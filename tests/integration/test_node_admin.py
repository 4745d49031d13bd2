"""Nodes come and go under traffic, by the control plane, and no request fails for it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.node_traffic import Control, control, name_of, spread, traffic

SLOW = {"decode_rate": 200.0, "answer_tokens": 40}
"""A fifth of a second an answer: long enough to be under way when something happens."""
SLOWER = {"decode_rate": 20.0, "answer_tokens": 400}
"""Twenty seconds an answer."""


@pytest.fixture
def nodes() -> Iterator[tuple[Stub, Stub]]:
    """Two nodes."""
    with running_stub(**SLOW) as one, running_stub(**SLOW) as other:
        yield one, other


def test_an_added_node_gets_its_share_under_traffic_and_no_request_fails(nodes: tuple[Stub, Stub]) -> None:
    """It needs no restart; before it is healthy it gets nothing."""
    one, other = nodes
    with running_gateway(f"vllm={one.url}") as gateway, control(gateway) as admin, traffic(gateway) as going:
        added = admin.add(other.url)
        assert 200 == added.status_code
        assert name_of(other.url) == added.json()["id"]
        assert until(lambda: other.stats()["finished"] > 5)
        assert "an administrator" == admin.nodes()[name_of(other.url)]["origin"]
        was_answered = going.answered
        assert until(lambda: going.answered > was_answered + 10)

    assert [] == going.failed


def test_a_node_that_is_not_up_gets_no_request_until_it_is(stub: Stub, unused_port: int) -> None:
    """It is taken in all the same: it may be loading its model."""
    url = f"http://127.0.0.1:{unused_port}"
    with running_gateway(f"vllm={stub.url}") as gateway, control(gateway) as admin:
        assert not admin.add(url).json()["healthy"]
        assert {name_of(stub.url): 20} == spread(gateway, 20)
        assert {name_of(stub.url): "healthy", name_of(url): "away"} == admin.states()


def test_a_drained_node_ends_what_runs_and_gets_nothing_new(nodes: tuple[Stub, Stub]) -> None:
    """No request fails; undrained, it is asked again."""
    one, other = nodes
    with (
        running_gateway(f"vllm={one.url}", f"vllm={other.url}") as gateway,
        control(gateway) as admin,
        traffic(gateway) as going,
    ):
        assert until(lambda: other.stats()["finished"] > 3)
        assert admin.drain(name_of(other.url)).json()["draining"]
        assert until(lambda: admin.nodes()[name_of(other.url)]["running"] == 0)
        came = other.stats()["requests"]
        was_answered = going.answered
        assert until(lambda: going.answered > was_answered + 10)
        assert came == other.stats()["requests"]
        assert not admin.undrain(name_of(other.url)).json()["draining"]
        assert until(lambda: other.stats()["requests"] > came)

    assert [] == going.failed
    assert 0 == other.stats()["aborted"]


def test_a_removed_node_is_gone_once_nothing_runs_on_it(nodes: tuple[Stub, Stub]) -> None:
    """It leaves the list, and no request fails."""
    one, other = nodes
    with running_gateway(f"vllm={one.url}") as gateway, control(gateway) as admin:
        admin.add(other.url)
        with traffic(gateway) as going:
            assert until(lambda: other.stats()["finished"] > 3)
            assert admin.remove(name_of(other.url)).json()["deleted"]
            assert until(lambda: name_of(other.url) not in admin.nodes())
            was_answered = going.answered
            assert until(lambda: going.answered > was_answered + 10)

        assert [] == going.failed
        assert 0 == other.stats()["aborted"]
        assert 404 == admin.remove(name_of(other.url)).status_code


def test_a_bounded_drain_breaks_off_what_still_runs() -> None:
    """A node that must go at once: the engine is freed, the client sees an error and no clean end."""
    with (
        running_stub(**SLOWER) as node,
        running_gateway(f"vllm={node.url}") as gateway,
        control(gateway) as admin,
        traffic(gateway, clients=1) as going,
    ):
        assert until(lambda: node.stats()["running"] == 1)
        admin.drain(name_of(node.url), within_s=0.2)
        assert until(lambda: bool(going.failed))
        assert until(lambda: node.stats()["running"] == 0)
        assert "error" in going.failed[0]
        assert 1 == node.stats()["aborted"]


def test_a_bounded_removal_goes_on_when_its_time_is_over() -> None:
    """Whatever still runs there."""
    options = ("--set", "roster.drain_s=0.2")
    with (
        running_stub() as good,
        running_stub(**SLOWER) as node,
        running_gateway(f"vllm={good.url}", options=options) as gateway,
        control(gateway) as admin,
        traffic(gateway) as going,
    ):
        admin.add(node.url)
        assert until(lambda: node.stats()["running"] > 0)
        admin.remove(name_of(node.url))
        assert until(lambda: name_of(node.url) not in admin.nodes())
        assert until(lambda: node.stats()["running"] == 0)
        was_answered = going.answered
        assert until(lambda: going.answered > was_answered + 10)


@pytest.mark.parametrize(
    ("fields", "status", "code", "words"),
    [
        ({"url": "http://169.254.169.254"}, 400, None, "link-local addresses"),
        ({"url": "ftp://127.0.0.1"}, 400, None, "expected a node's address like"),
        ({"url": "http://127.0.0.1:1/v1"}, 400, None, "without /v1"),
        ({"url": "http://nobody.invalid:1"}, 400, None, "nobody.invalid cannot be looked up"),
        ({"url": "http://127.0.0.1:1", "engine": "tgi"}, 400, None, "Invalid enum value 'tgi'"),
        ({"url": "http://127.0.0.1:1", "wieght": 2}, 400, None, "wieght"),
        ({"url": "http://127.0.0.1:1", "weight": 0}, 400, None, "weight: expected a number from"),
        ({"url": "http://127.0.0.1:1", "id": "a/b"}, 400, None, "id: expected"),
        ({"url": "http://127.0.0.1:1", "rank": -1}, 400, None, "rank: expected"),
        ({"url": "http://127.0.0.1:1", "api_key": "a\r\nb: c"}, 400, None, "api_key: expected"),
        (
            {"url": "http://127.0.0.1:1", "kv_events": {"endpoint": "tcp://*:5557"}},
            400,
            None,
            "name its host instead of *",
        ),
    ],
)
def test_a_bad_spec_is_refused_with_what_is_wrong(
    gateway: Gateway, fields: dict[str, object], status: int, code: str | None, words: str
) -> None:
    """In OpenAI's envelope; nothing is added."""
    with control(gateway) as admin:
        before = admin.nodes().keys()
        refused = admin.client.post("/admin/nodes", json={"engine": "vllm", **fields})
        error = refused.json()["error"]

        assert (status, code) == (refused.status_code, error["code"])
        assert words in error["message"]
        assert before == admin.nodes().keys()


class Redirect(BaseHTTPRequestHandler):
    """A server that sends everybody elsewhere."""

    def do_GET(self) -> None:
        self.send_response(307)
        self.send_header("location", "http://127.0.0.1:1/")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def test_an_address_that_redirects_is_refused(gateway: Gateway) -> None:
    """Requests would follow it to wherever the other side says."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirect) as server, control(gateway) as admin:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        refused = admin.add(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()

        assert 400 == refused.status_code
        assert "redirects are not followed" in refused.json()["error"]["message"]


def test_only_added_nodes_can_be_removed(gateway: Gateway, stub: Stub) -> None:
    """The file stays the truth for its own; and a name is taken once."""
    name = name_of(stub.url)
    with control(gateway) as admin:
        refused, twice, unknown = admin.remove(name), admin.add(stub.url), admin.drain("nobody")

        assert (409, "node_not_removable") == (refused.status_code, refused.json()["error"]["code"])
        assert "the configuration" in refused.json()["error"]["message"]
        assert (409, "node_exists") == (twice.status_code, twice.json()["error"]["code"])
        assert (404, "node_not_found") == (unknown.status_code, unknown.json()["error"]["code"])


def test_a_nodes_key_is_never_shown(gateway: Gateway, unused_port: int) -> None:
    """Not where it is added, not in the list."""
    with control(gateway) as admin:
        added = admin.add(f"http://127.0.0.1:{unused_port}", api_key="sk-very-secret")
        listed = admin.client.get("/admin/nodes")
        admin.remove(f"127.0.0.1:{unused_port}")

        assert 200 == added.status_code
        assert "sk-very-secret" not in added.text + listed.text


def test_draining_warms_its_conversations_elsewhere(nodes: tuple[Stub, Stub]) -> None:
    """Before their next message comes."""
    one, other = nodes
    with running_gateway(f"vllm={one.url}") as gateway, control(gateway) as admin:
        talk(gateway, admin)
        admin.add(other.url)
        assert until(lambda: admin.nodes()[name_of(other.url)]["healthy"])
        admin.drain(name_of(one.url))

        assert until(lambda: other.stats()["finished"] == 1)
        assert 1 == other.stats()["recent"][0]["body"]["max_tokens"]


def talk(gateway: Gateway, admin: Control) -> None:
    """One turn of a conversation."""
    body = {"model": "stub", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"x-session-id": "s1"}
    answer = admin.client.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers)
    assert 200 == answer.status_code
