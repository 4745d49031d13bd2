"""Rollouts as operators meet them: refused with the reason, taken back by rule, told by a command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.rollout.share import seat
from tests.gateway_process import Gateway, Stub, running_gateway, running_stub, until
from tests.node_traffic import name_of
from tests.rollout_desk import Desk, desk, say, write_weights

ALIAS = "luna"
QUICK = ("--set", "rollout.drain_s=0", "--set", "rollout.judge_s=0.2", "--set", "rollout.attempts=2")


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A node of this test alone: adapters stay loaded."""
    with running_stub() as node:
        yield node


@pytest.fixture
def gateway(stub: Stub) -> Iterator[Gateway]:
    """Over one node."""
    with running_gateway(f"vllm={stub.url}", options=QUICK) as running:
        yield running


@pytest.fixture
def admin(gateway: Gateway) -> Iterator[Desk]:
    """Its control plane."""
    with desk(gateway) as found:
        yield found


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


def test_what_engines_would_refuse_is_refused_before_they_are_asked(
    admin: Desk, stub: Stub, tmp_path: Path
) -> None:
    """With the reason; the alias is not there after it."""
    dora = write_weights(tmp_path / "dora", use_dora=True)
    rank = write_weights(tmp_path / "saved", modules_to_save=["lm_head"])
    good = write_weights(tmp_path / "good")
    refused = {
        "DoRA": admin.start(ALIAS, "v1", dora),
        "modules_to_save": admin.start(ALIAS, "v1", rank),
        "local_path": admin.start(ALIAS, "v1", "/nowhere/at/all"),
        "path: where": admin.start(ALIAS, "v1", ""),
        "no node serves": admin.start(ALIAS, "v1", good, base="unknown"),
        "without --": admin.start("lu--na", "v1", good),
        "rising": admin.start(ALIAS, "v1", good, steps=[0.5, 0.1]),
        "min_answers": admin.start(ALIAS, "v1", good, rule={"min_answers": "many"}),
        "one node alone": admin.start(ALIAS, "v1", "", kind="model"),
        "unknown field": admin.start(ALIAS, "v1", good, colour="blue"),
    }

    for words, answer in refused.items():
        assert answer.status_code in {400, 409}
        assert words in answer.json()["error"]["message"]
    assert [] == admin.client.get("/admin/rollouts").json()["data"]
    assert 404 == admin.client.get(f"/admin/rollouts/{ALIAS}").status_code
    assert 404 == admin.do("widen", ALIAS).status_code
    assert {"stub"} == {
        name for node in admin.client.get("/admin/nodes").json()["data"] for name in node["models"]
    }
    assert stub.process.poll() is None


def test_a_version_that_does_not_answer_is_seen_by_nobody(admin: Desk, stub: Stub, tmp_path: Path) -> None:
    """The reason is in the history, and the node is rid of it."""
    stub.set_faults({"kind": "status", "status": 500, "text": "luna--v1"})
    admin.start(ALIAS, "v1", write_weights(tmp_path / "v1"), approved=True).raise_for_status()

    assert until(lambda: admin.state(ALIAS) == "settled")
    shown = admin.shown(ALIAS)
    assert "stub" == shown["current"]["name"]
    assert ("taken back", "the gateway") == (shown["history"][-1]["what"], shown["history"][-1]["by"])
    assert "it failed" in shown["history"][-1]["why"]
    assert until(lambda: admin.versions(ALIAS)[name_of(stub.url)] == ["stub"])


def test_a_version_that_fails_is_taken_back_by_the_rule(
    admin: Desk, gateway: Gateway, stub: Stub, tmp_path: Path
) -> None:
    """Its node stays in service: it is the adapter that fails. The numbers are in the reason."""
    rule = {"min_answers": 8, "error_excess": 0.05}
    admin.start(
        ALIAS, "v1", write_weights(tmp_path / "v1"), approved=True, steps=[0.5], rule=rule
    ).raise_for_status()
    assert until(lambda: admin.state(ALIAS) == "sharing")
    stub.set_faults({"kind": "status", "status": 500, "text": '"luna--v1"'})
    said = [say(gateway, ALIAS, f"dialogue {number}") for number in range(40)]

    assert {200, 502} == {one.status for one in said}
    assert until(lambda: admin.state(ALIAS) == "settled")
    last = admin.shown(ALIAS)["history"][-1]
    assert ("taken back", "the rule") == (last["what"], last["by"])
    assert "requests failed" in last["why"]
    assert {200} == {say(gateway, ALIAS, f"dialogue {number}").status for number in range(40)}
    told = admin.report(ALIAS)["versions"]
    assert 0 == told["stub"]["errors"] < told["luna--v1"]["errors"]


def test_the_rule_widens_where_that_is_wanted(admin: Desk, gateway: Gateway, tmp_path: Path) -> None:
    """Step by step, to the end."""
    rule = {"min_answers": 3, "hold_s": 0, "widens": True}
    path = write_weights(tmp_path / "v1")
    admin.start(ALIAS, "v1", path, approved=True, steps=[0.5, 1.0], rule=rule).raise_for_status()
    assert until(lambda: admin.state(ALIAS) == "sharing")
    for number in range(20):
        assert 200 == say(gateway, ALIAS, f"dialogue {number}").status

    assert until(lambda: admin.shown(ALIAS)["current"]["name"] == "luna--v1")
    assert ["widened to 1 of what begins", "everybody's"] == admin.decisions(ALIAS)[-2:]


def test_a_node_that_cannot_says_why_and_others_go_on(tmp_path: Path) -> None:
    """It is asked a bounded number of times, and asked anew after a restart."""
    with running_stub() as one, running_stub() as two:
        first, other = name_of(one.url), two
        version = next(f"v{n}" for n in range(99) if _is_first(first, name_of(two.url), f"v{n}"))
        other.set_faults({"kind": "status", "status": 500, "path": "/v1/load_lora_adapter"})
        with (
            running_gateway(f"vllm={one.url}", f"vllm={two.url}", options=QUICK) as gateway,
            desk(gateway) as admin,
        ):
            path = write_weights(tmp_path / "weights")
            admin.start(ALIAS, version, path, approved=True, steps=[1.0]).raise_for_status()
            assert until(lambda: admin.state(ALIAS) == "sharing")
            assert until(lambda: "attempts" in (_problem(admin, name_of(two.url)) or ""))
            assert f"{ALIAS}--{version}" in _problem(admin, name_of(two.url))
            assert not _problem(admin, first)
            assert {200} == {say(gateway, ALIAS, f"dialogue {number}").status for number in range(10)}


def _is_first(one: str, other: str, version: str) -> bool:
    return seat("", one, f"{ALIAS}--{version}") < seat("", other, f"{ALIAS}--{version}")


def _problem(admin: Desk, node: str) -> str:
    found = next(one for one in admin.shown(ALIAS)["nodes"] if one["id"] == node)
    return str(found["problem"] or "")


def friendo(gateway: Gateway, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command line as a user types it."""
    command = [sys.executable, "-m", "gateway", "rollout", *arguments, "--admin", gateway.admin_url]
    env = {**os.environ, "FRIENDO_ACTOR": "ada"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_does_all_of_it(gateway: Gateway, admin: Desk, tmp_path: Path) -> None:
    """From the start to the way back."""
    path = write_weights(tmp_path / "v1")
    started = friendo(gateway, "start", ALIAS, "v1", path, "--step", "0.5", "--step", "1", "--why", "new")
    assert (0, "") == (started.returncode, started.stderr)
    assert "luna: waiting_for_approval; stub is there. luna--v1 has 0 of what begins" in started.stdout
    assert "loading" in friendo(gateway, "approve", ALIAS).stdout
    assert until(lambda: admin.state(ALIAS) == "sharing")
    assert "luna--v1 has 1 of what begins" in friendo(gateway, "widen", ALIAS).stdout
    say(gateway, ALIAS, "a dialogue")
    assert "\nanswers\t1\n" in friendo(gateway, "report", ALIAS).stdout
    assert "luna\tsharing\tstub\tluna--v1 has 1 of what begins\n" == friendo(gateway, "list").stdout
    assert "settled; stub is there" in friendo(gateway, "back", ALIAS, "--why", "jokes").stdout
    lines = friendo(gateway, "show", ALIAS).stdout.splitlines()
    assert ["luna--v1", "taken back", "ada", "jokes"] == lines[-1].split("\t")[1:]
    refused = friendo(gateway, "back", ALIAS)
    assert (1, "friendo rollout: there is no version before stub\n") == (refused.returncode, refused.stderr)
