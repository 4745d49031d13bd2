"""Added nodes and drains outlast a restart and hold on every replica, whatever becomes of the store."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.nodes.membership import ANSWER_WITHIN_S, POLL_EVERY_S
from tests.conftest import Valkey
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.node_traffic import control, name_of, spread


@pytest.fixture
def other() -> Iterator[Stub]:
    """A second node."""
    with running_stub() as node:
        yield node


def over(valkey: Valkey) -> tuple[str, ...]:
    """The options of a gateway that keeps things there."""
    return ("--redis", valkey.url)


def test_a_restarted_gateway_has_the_nodes_and_drains_that_it_had(
    stub: Stub, other: Stub, valkey: Valkey
) -> None:
    """Those of its file, those that were added, and which of them get no requests."""
    with running_gateway(f"vllm={stub.url}", options=over(valkey)) as gateway, control(gateway) as admin:
        admin.add(other.url)
        admin.drain(name_of(stub.url))

    with running_gateway(f"vllm={stub.url}", options=over(valkey)) as gateway, control(gateway) as admin:
        assert {name_of(stub.url): "draining", name_of(other.url): "healthy"} == admin.states()
        assert {name_of(other.url): 10} == spread(gateway, 10)
        admin.remove(name_of(other.url))
        admin.undrain(name_of(stub.url))

    with running_gateway(f"vllm={stub.url}", options=over(valkey)) as gateway, control(gateway) as admin:
        assert {name_of(stub.url): "healthy"} == admin.states()


def test_a_gateway_without_nodes_of_its_own_starts_with_those_that_were_added(
    stub: Stub, valkey: Valkey
) -> None:
    """All of its nodes may be an administrator's."""
    options = (*over(valkey), "--set", "nodes=[]")
    with (
        running_gateway(options=(*options, "--config", "config/dev.yaml")) as gateway,
        control(gateway) as admin,
    ):
        assert {} == admin.nodes()
        admin.add(stub.url)
        assert until(lambda: admin.states() == {name_of(stub.url): "healthy"})

    with running_gateway(options=(*options, "--config", "config/dev.yaml")) as gateway:
        assert {name_of(stub.url): 3} == spread(gateway, 3)


def test_every_replica_sees_a_change_within_two_seconds(stub: Stub, other: Stub, valkey: Valkey) -> None:
    """Added, drained, undrained and removed on one, seen on the other."""
    name = name_of(other.url)
    nodes, options = (f"vllm={stub.url}",), over(valkey)
    with (
        running_gateway(*nodes, options=options) as one,
        running_gateway(*nodes, options=options) as two,
        control(one) as here,
        control(two) as there,
    ):
        for change, state in (
            (lambda: here.add(other.url), "healthy"),
            (lambda: here.drain(name), "draining"),
            (lambda: here.undrain(name), "healthy"),
            (lambda: here.remove(name), None),
        ):
            assert 200 == change().status_code
            assert until(lambda wanted=state: there.states().get(name) == wanted)
        assert {name_of(stub.url): "healthy"} == here.states() == there.states()

    assert POLL_EVERY_S + ANSWER_WITHIN_S < 2


def test_while_the_store_is_away_the_nodes_stay_and_changes_are_refused(
    stub: Stub, other: Stub, valkey: Valkey
) -> None:
    """503, to be tried again; once it is back, changes work as before."""
    options = (*over(valkey), "--set", "history.on_outage=stateless")
    with running_gateway(f"vllm={stub.url}", options=options) as gateway, control(gateway) as admin:
        admin.add(other.url)
        valkey.kill()
        refused = admin.drain(name_of(other.url))
        assert (503, "store_unavailable") == (refused.status_code, refused.json()["error"]["code"])
        assert "true" == refused.headers["x-should-retry"]
        assert 10 == sum(spread(gateway, 10).values())
        assert {name_of(stub.url): "healthy", name_of(other.url): "healthy"} == admin.states()
        assert until(lambda: "store of nodes is away" in gateway.stderr())
        valkey.start()
        assert until(lambda: admin.drain(name_of(other.url)).status_code == 200, within_s=15)
        assert until(lambda: "store of nodes is back" in gateway.stderr())


def friendo(gateway: Gateway, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """The command line as a user types it."""
    command = [sys.executable, "-m", "gateway", "nodes", *arguments, "--admin", gateway.admin_url]
    env = {**os.environ, "COLUMNS": "200", **more}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_lists_adds_drains_and_removes(stub: Stub, other: Stub) -> None:
    """What it prints can be taken by a script; the rest goes beside it."""
    name = name_of(other.url)
    with running_gateway(f"vllm={stub.url}") as gateway:
        added = friendo(gateway, "add", "vllm", other.url, "--model", "stub", "--weight", "2")
        assert (0, f"{name}\n") == (added.returncode, added.stdout)
        rows = [line.split("\t") for line in friendo(gateway, "list").stdout.splitlines()]
        assert [name_of(stub.url), name] == [row[0] for row in rows]
        assert ["vLLM", "0.32.0", "stub"] == rows[1][2:5]
        assert f"Node {name} drains" in friendo(gateway, "drain", name, "--within", "5").stdout
        assert "healthy, drains" in friendo(gateway, "list").stdout
        assert f"Node {name} gets requests again" in friendo(gateway, "undrain", name).stdout
        assert f"Node {name} is removed" in friendo(gateway, "remove", name).stdout
        gone = friendo(gateway, "remove", name)

    assert (1, "") == (gone.returncode, gone.stdout)
    assert gone.stderr == f"friendo nodes: there is no node '{name}'; `friendo nodes list` shows their ids\n"


def test_the_command_line_needs_an_admin_key_where_keys_are_asked_for(stub: Stub, valkey: Valkey) -> None:
    """Taken from the environment, so that it is in no list of processes."""
    env = {"FRIENDO_KEY_PEPPER": "p" * 32, "FRIENDO__STORE__URL": valkey.url}
    command = [sys.executable, "-m", "gateway", "keys", "create", "--tenant", "ops", "--name", "n"]
    made = subprocess.run(
        [*command, "--scope", "admin"], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    with running_gateway(f"vllm={stub.url}", options=over(valkey), env=env, auth=True) as gateway:
        refused = friendo(gateway, "list")
        listed = friendo(gateway, "list", FRIENDO_ADMIN_KEY=made.stdout.strip())

    assert (1, "") == (refused.returncode, refused.stdout)
    assert "FRIENDO_ADMIN_KEY" in refused.stderr
    assert listed.stdout.startswith(name_of(stub.url))


def test_the_command_line_says_what_to_do_where_nobody_answers(unused_port: int) -> None:
    """One line, and which option mends it."""
    url = f"http://127.0.0.1:{unused_port}"
    command = [sys.executable, "-m", "gateway", "nodes", "list", "--admin", url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (1, "", 1) == (ran.returncode, ran.stdout, ran.stderr.count("\n"))
    assert f"no gateway answers at {url}" in ran.stderr
    assert "--admin" in ran.stderr
