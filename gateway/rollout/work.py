"""What is to be done on nodes so that they serve what the records want. Pure.

Adapters live in an engine's memory, so what a node has is compared with what it should have, again and again:
a restart shows as a difference like any other.
"""

import math
from collections.abc import Sequence

import msgspec

from gateway.rollout.ports import NodeView
from gateway.rollout.record import Leaving, Rollout, Turning, Version
from gateway.rollout.share import seat

_FORGOTTEN_AFTER_S = 86_400.0
"""A node that was away may come back with a version that left; nobody asks it for that."""


class Work(msgspec.Struct, frozen=True):
    """What nodes lack, and what they have too much."""

    loads: tuple[tuple[str, Version], ...] = ()
    unloads: tuple[tuple[str, str], ...] = ()


def hosts(version: Version, nodes: Sequence[NodeView]) -> list[NodeView]:
    """The nodes that could serve a version as they were started."""
    return [one for one in nodes if one.is_healthy and not one.is_draining and version.model in one.models]


def first_node(record: Rollout, nodes: Sequence[NodeView]) -> str:
    """Where a trial's adapter is loaded before anywhere else; empty: nowhere now. It stays, if it can."""
    trial = record.trial
    if trial is None:
        return ""
    able = [one.name for one in hosts(trial.version, nodes)]
    if trial.first_node in able:
        return trial.first_node
    return min(able, key=lambda name: seat("", name, trial.version.name), default="")


def adapter_work(record: Rollout, nodes: Sequence[NodeView], *, now: float, drain_s: float) -> Work:
    """What adapters are to be loaded and unloaded where."""
    loads = []
    for version in (*record.live, *record.earlier):
        loads += [(node, version) for node in _lacking(version, nodes)]
    trial = record.trial
    if trial is not None and trial.state == "loading" and trial.first_node in _lacking(trial.version, nodes):
        loads.append((trial.first_node, trial.version))
    gone = [one.version.name for one in record.leaving if now - one.since >= drain_s]
    unloads = [
        (node.name, name) for node in nodes if node.is_healthy for name in gone if name in node.adapters
    ]
    return Work(tuple(loads), tuple(unloads))


def still_leaving(record: Rollout, nodes: Sequence[NodeView], *, now: float) -> tuple[Leaving, ...]:
    """Without those that are on no node any more, and left long enough ago for all to be back."""
    return tuple(
        one
        for one in record.leaving
        if now - one.since < _FORGOTTEN_AFTER_S or any(one.version.name in node.models for node in nodes)
    )


def turned(record: Rollout, nodes: Sequence[NodeView], *, now: float) -> Turning | None:
    """Which node is to be restarted with which model, one at a time; the one that is at it, until it is done.

    None: every node serves what it should.
    """
    wanted = {version.model for version in record.live}
    trial = record.trial
    is_model = trial is not None and trial.version.kind == "model" and trial.state != "waiting_for_approval"
    if is_model and trial is not None:
        wanted.add(trial.version.name)
    if (at := record.turning) is not None:
        return _goes_on(at, record, nodes, wanted, now)
    known = {version.model for version in record.versions if version.kind != "adapter"}
    fleet = [one for one in nodes if one.models & known and not one.is_fixed]
    if is_model and trial is not None:
        has = sum(trial.version.name in one.models for one in fleet)
        needs = math.ceil(trial.share * len(fleet))
        if has < min(len(fleet) - 1, max(1, needs)):
            return _next(fleet, record.current.model, trial.version.name, now)
    misplaced = (_next(fleet, model, record.current.model, now) for model in sorted(known - wanted))
    return next((one for one in misplaced if one is not None), None)


def _goes_on(
    at: Turning, record: Rollout, nodes: Sequence[NodeView], wanted: set[str], now: float
) -> Turning | None:
    node = next((one for one in nodes if one.name == at.node), None)
    if node is None or (node.is_healthy and at.to in node.models):
        return None
    if at.to in wanted:
        return at
    # It was to become what is no longer wanted: either it had not begun, or it turns back.
    return None if node.models & wanted else Turning(at.node, record.current.model, now)


def _next(fleet: Sequence[NodeView], model: str, to: str, now: float) -> Turning | None:
    able = [one.name for one in fleet if one.is_healthy and model in one.models and to not in one.models]
    return Turning(min(able), to, now) if able else None


def _lacking(version: Version, nodes: Sequence[NodeView]) -> list[str]:
    if version.kind != "adapter":
        return []
    return [node.name for node in hosts(version, nodes) if version.name not in node.models]
