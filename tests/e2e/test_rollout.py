"""A version on its way to everybody and back: two nodes, two gateways, a node that restarts."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.conftest import Valkey
from tests.gateway_process import Gateway, running_gateway, running_stub, until
from tests.ports import free_port
from tests.rollout_desk import Answer, Desk, desk, say, write_weights

ALIAS, V1, V2 = "luna", "luna--v1", "luna--v2"
NAMES = tuple(f"dialogue {number}" for number in range(40))
LONG = "Once more, from the beginning: " + "all of this is said again and again. " * 40
SHARE = 0.25
SOON = ("--set", "history.upkeep.rewarm_within_s=600")


@pytest.fixture
def ports() -> list[int]:
    """Of the nodes; they keep them over a restart."""
    return [free_port(), free_port()]


@pytest.fixture
def nodes(ports: list[int]) -> Iterator[list[ExitStack]]:
    """Two vLLM nodes, each to be ended and started again."""
    with ExitStack() as stack:
        running = [stack.enter_context(ExitStack()) for _ in ports]
        for one, port in zip(running, ports, strict=True):
            one.enter_context(running_stub(port=port))
        yield running


@pytest.fixture
def replicas(ports: list[int], nodes: list[ExitStack], valkey: Valkey) -> Iterator[list[Gateway]]:
    """Two gateways over one store."""
    urls = [f"vllm=http://127.0.0.1:{port}" for port in ports]
    options = ("--redis", valkey.url, *SOON)
    with (
        running_gateway(*urls, options=options) as one,
        running_gateway(*urls, options=options) as two,
    ):
        yield [one, two]


@pytest.fixture
def admin(replicas: list[Gateway]) -> Iterator[Desk]:
    """The control plane of the first."""
    with desk(replicas[0]) as found:
        yield found


def everybody(replicas: list[Gateway], prefix: str = "") -> dict[str, list[Answer]]:
    """A turn of each dialogue on one replica, and one on the other."""
    return {name: [say(one, ALIAS, prefix + name, LONG) for one in replicas] for name in NAMES}


def seen_by(replicas: list[Gateway], state: str, current: str) -> bool:
    """Whether all replicas know that."""
    for one in replicas:
        with desk(one) as found:
            shown = found.shown(ALIAS)
            if (shown["state"], shown["current"]["name"]) != (state, current):
                return False
    return True


def test_a_version_is_shared_widened_reconciled_and_taken_back(
    admin: Desk, replicas: list[Gateway], nodes: list[ExitStack], ports: list[int], tmp_path: Path
) -> None:
    """Every step as users see it, on both replicas."""
    paths = [write_weights(tmp_path / name) for name in ("v1", "v2")]
    started = admin.start(ALIAS, "v1", paths[0], approved=True, steps=[1.0]).raise_for_status().json()
    assert "loading" == started["state"]
    assert until(lambda: admin.state(ALIAS) == "sharing")
    admin.do("widen", ALIAS).raise_for_status()
    assert until(lambda: seen_by(replicas, "settled", V1))
    before = everybody(replicas)
    assert {(200, ALIAS, V1)} == {
        (one.status, one.model, one.version) for pair in before.values() for one in pair
    }

    on_trial = _share(admin, replicas, paths[1])

    # A node that restarts has lost its adapters, and gets them back.
    nodes[0].close()
    with running_stub(port=ports[0]):
        name = f"127.0.0.1:{ports[0]}"
        assert until(lambda: {V1, V2} <= set(admin.versions(ALIAS).get(name, ())), within_s=30)
        again = everybody(replicas, "new ")
        assert on_trial == {name for name, pair in again.items() if pair[0].version == V2}

        admin.do("widen", ALIAS).raise_for_status()
        assert until(lambda: seen_by(replicas, "sharing", V1))
        late = everybody(replicas, "late ")
        assert {V2} == {one.version for pair in late.values() for one in pair}

        _take_back(admin, replicas, late, on_trial)


def _share(admin: Desk, replicas: list[Gateway], path: str) -> set[str]:
    """A second version gets its first share; the dialogues that began with it."""
    # Nothing is loaded before somebody says yes.
    waits = admin.start(ALIAS, "v2", path, steps=[SHARE, 1.0], why="a better one").raise_for_status()
    assert "waiting_for_approval" == waits.json()["state"]
    assert all(V2 not in has for has in admin.versions(ALIAS).values())
    admin.do("approve", ALIAS, "looks good").raise_for_status()
    assert until(lambda: admin.state(ALIAS) == "sharing")
    assert until(lambda: all(V2 in has for has in admin.versions(ALIAS).values()))
    assert until(lambda: seen_by(replicas, "sharing", V1))

    # Dialogues that were there keep their version; of those that begin, a share has the new one, everywhere.
    assert {V1} == {one.version for pair in everybody(replicas).values() for one in pair}
    shared = everybody(replicas, "new ")
    assert all(first.version == second.version for first, second in shared.values())
    on_trial = {name for name, pair in shared.items() if pair[0].version == V2}
    assert 0.05 < len(on_trial) / len(NAMES) < 0.5
    assert {200} == {one.status for pair in shared.values() for one in pair}
    return on_trial


def _take_back(
    admin: Desk, replicas: list[Gateway], late: dict[str, list[Answer]], on_trial: set[str]
) -> None:
    """The version before is there, and what spoke lately finds its prefix warm."""
    admin.do("back", ALIAS, "worse jokes").raise_for_status()
    assert until(lambda: seen_by(replicas, "settled", V1))
    history = admin.shown(ALIAS)["history"]
    assert ["taken back", "test", "worse jokes"] == [history[-1][field] for field in ("what", "by", "why")]
    assert until(lambda: _moves(replicas[0]) + _moves(replicas[1]) >= len(late))
    until(lambda: False, within_s=3.0)  # what was put into the queue is warmed meanwhile
    back = {name: say(replicas[0], ALIAS, f"late {name}", LONG) for name in late}
    assert {V1} == {one.version for one in back.values()}
    warm = sum(one.cached > 0.4 * one.prompt for one in back.values())
    assert warm > 0.8 * len(back)
    told = admin.report(ALIAS)["versions"]
    assert told[V2]["answers"] >= 2 * (len(on_trial) + len(late))
    assert told[V2]["conversations"] == len(on_trial) + len(late)
    assert 0 == told[V2]["errors"] == told[V1]["errors"]


def _moves(gateway: Gateway) -> float:
    """Conversations that it moved to another version."""
    lines = httpx.get(f"{gateway.admin_url}/metrics", trust_env=False).text.splitlines()
    found = [line for line in lines if line.startswith('friendo_events_total{kind="version_moves"}')]
    return sum(float(line.rpartition(" ")[2]) for line in found)
