"""The record of one alias: which versions there are, who gets which, and how it came to that. Pure.

    current     everybody's, unless they are told otherwise
    trial       the next one: waiting_for_approval → loading → sharing; then it is current, or leaves
    earlier     were current, newest first; they stay loaded, so that going back is instant
    leaving     nobody gets them any more; unloaded once what runs on them has ended

A version is never changed: another one gets another name. Times are Unix seconds.
"""

import re
from itertools import pairwise
from typing import Literal

import msgspec

from gateway.rollout.errors import RolloutRefused
from gateway.rollout.verdict import Rule

Kind = Literal["base", "adapter", "model"]
State = Literal["waiting_for_approval", "loading", "sharing"]

DECISIONS_KEPT = 100
LEAVING_KEPT = 16
MAX_STEPS = 16
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TEXT_KEPT = 500


class Version(msgspec.Struct, frozen=True):
    """What an alias may stand for."""

    name: str
    """What nodes are asked for."""
    kind: Kind = "adapter"
    """`base`: what nodes were started with; `adapter`: a LoRA adapter; `model`: nodes restart with it."""
    path: str = ""
    """Where an adapter lies on the nodes' own disks."""
    base: str = ""
    """The model that an adapter belongs to."""

    @property
    def model(self) -> str:
        """What a node has to be started with to serve it."""
        return self.base or self.name


class Trial(msgspec.Struct, frozen=True):
    """A version on its way to everybody."""

    number: int
    """Counts an alias's trials; what is counted of answers is kept by it."""
    version: Version
    state: State
    steps: tuple[float, ...]
    """Shares of the conversations that begin, rising; behind the last one it becomes the current version."""
    rule: Rule
    step: int = 0
    since: float = 0.0
    """When its state or step began."""
    first_node: str = ""
    """Where it is tried before anywhere else."""

    @property
    def share(self) -> float:
        """The share of the conversations that begin now."""
        return self.steps[self.step] if self.state == "sharing" else 0.0


class Leaving(msgspec.Struct, frozen=True):
    """A version that nobody gets any more."""

    version: Version
    since: float


class Turning(msgspec.Struct, frozen=True):
    """The one node that is kept from requests until it was restarted with another model."""

    node: str
    to: str
    since: float


class Decision(msgspec.Struct, frozen=True):
    """What was decided, by whom, and why."""

    at: float
    what: str
    version: str
    by: str
    why: str = ""


class Rollout(msgspec.Struct, frozen=True):
    """Everything that is decided of one alias."""

    alias: str
    current: Version
    trial: Trial | None = None
    earlier: tuple[Version, ...] = ()
    leaving: tuple[Leaving, ...] = ()
    turning: Turning | None = None
    trials: int = 0
    history: tuple[Decision, ...] = ()
    """The newest decisions, oldest first."""
    revision: int = 0
    """Counts changes: whoever writes says which one it read."""

    @property
    def live(self) -> tuple[Version, ...]:
        """Those that conversations may begin with."""
        is_shared = self.trial is not None and self.trial.state == "sharing"
        return (self.current, self.trial.version) if is_shared and self.trial is not None else (self.current,)

    @property
    def versions(self) -> tuple[Version, ...]:
        """All of them."""
        trial = () if self.trial is None else (self.trial.version,)
        return (self.current, *trial, *self.earlier, *(one.version for one in self.leaving))


class Order(msgspec.Struct, frozen=True):
    """A version as an operator wants it rolled out."""

    alias: str
    version: Version
    base: str
    """What an alias that is new stands for until then."""
    steps: tuple[float, ...]
    rule: Rule
    is_approved: bool = False


class Actor(msgspec.Struct, frozen=True):
    """Who does something, when, and why."""

    by: str
    at: float
    why: str = ""


def version_name(alias: str, version: str) -> str:
    """What nodes are asked for. Raises `RolloutRefused` for names that cannot be."""
    if not _ALIAS.fullmatch(alias) or "--" in alias:
        raise RolloutRefused(
            "alias: expected up to 128 of A-Z a-z 0-9 _ . / - without --, and a letter or digit first",
            status=400,
        )
    if not _VERSION.fullmatch(version):
        raise RolloutRefused(
            "version: expected up to 64 of A-Z a-z 0-9 _ . - and a letter or digit first", status=400
        )
    return f"{alias}--{version}"


def begun(record: Rollout | None, order: Order, actor: Actor) -> Rollout:
    """The record with a trial of that version. Raises `RolloutRefused`."""
    check_steps(order.steps)
    if record is None:
        record = Rollout(alias=order.alias, current=Version(order.base, "base"))
    if record.trial is not None:
        raise RolloutRefused(
            f"{record.trial.version.name} is being rolled out: widen it to the end, or take it back first"
        )
    _check_version(record, order)
    trial = Trial(
        number=record.trials + 1,
        version=order.version,
        state="loading" if order.is_approved else "waiting_for_approval",
        steps=order.steps,
        rule=order.rule,
        since=actor.at,
    )
    what = "started, approved" if order.is_approved else "started"
    record = msgspec.structs.replace(record, trial=trial, trials=record.trials + 1)
    return decided(record, what, order.version.name, actor)


def approved(record: Rollout, actor: Actor) -> Rollout:
    """A human says that it may be loaded."""
    trial = _trial(record)
    if trial.state != "waiting_for_approval":
        raise RolloutRefused(f"{trial.version.name} is approved already; it is {trial.state}")
    return decided(_with(record, trial, actor, state="loading"), "approved", trial.version.name, actor)


def placed(record: Rollout, node: str) -> Rollout:
    """Its first node is chosen."""
    return msgspec.structs.replace(record, trial=msgspec.structs.replace(_trial(record), first_node=node))


def shared(record: Rollout, actor: Actor) -> Rollout:
    """It answered on its first node: conversations begin with it."""
    trial = _trial(record)
    record = _with(record, trial, actor, state="sharing")
    return decided(record, f"shared with {trial.steps[0]:.3g} of what begins", trial.version.name, actor)


def widened(record: Rollout, actor: Actor) -> Rollout:
    """The next step; behind the last one it is everybody's."""
    trial = _trial(record)
    if trial.state != "sharing":
        raise RolloutRefused(f"{trial.version.name} is {trial.state}: it has no share yet that could grow")
    if trial.step + 1 < len(trial.steps):
        what = f"widened to {trial.steps[trial.step + 1]:.3g} of what begins"
        record = _with(record, trial, actor, step=trial.step + 1)
        return decided(record, what, trial.version.name, actor)
    earlier = (record.current, *(one for one in record.earlier if one != record.current))
    record = msgspec.structs.replace(record, current=trial.version, trial=None, earlier=earlier)
    return decided(record, "everybody's", trial.version.name, actor)


def taken_back(record: Rollout, actor: Actor, *, keep: int) -> Rollout:
    """The trial ends; without one, the version before the current one is everybody's again."""
    if (trial := record.trial) is not None:
        record = msgspec.structs.replace(record, trial=None)
        return decided(_left(record, trial.version, actor), "taken back", trial.version.name, actor)
    if not record.earlier:
        raise RolloutRefused(f"there is no version before {record.current.name}")
    gone, now = record.current, record.earlier[0]
    record = msgspec.structs.replace(record, current=now, earlier=record.earlier[1:])
    record = decided(_left(record, gone, actor), "taken back", gone.name, actor)
    return trimmed(record, actor, keep=keep)


def trimmed(record: Rollout, actor: Actor, *, keep: int) -> Rollout:
    """Only the newest `keep` earlier versions stay loaded; what nodes were started with always does."""
    for version in record.earlier[keep:]:
        if version.kind == "adapter":
            record = msgspec.structs.replace(
                record, earlier=tuple(one for one in record.earlier if one != version)
            )
            record = _left(record, version, actor)
    return record


def decided(record: Rollout, what: str, version: str, actor: Actor) -> Rollout:
    """The record with one decision more in its history."""
    one = Decision(actor.at, what, version, actor.by[:_TEXT_KEPT], actor.why[:_TEXT_KEPT])
    return msgspec.structs.replace(record, history=(*record.history, one)[-DECISIONS_KEPT:])


def check_steps(steps: tuple[float, ...]) -> None:
    """Raises `RolloutRefused` unless they rise, above 0 and at most to 1."""
    rises = all(low < high for low, high in pairwise(steps))
    if not 1 <= len(steps) <= MAX_STEPS or not rises or not 0 < steps[0] <= steps[-1] <= 1:
        raise RolloutRefused(
            f"steps: expected 1 to {MAX_STEPS} shares above 0, rising, at most 1, like 0.05 0.25 1",
            status=400,
        )


def _check_version(record: Rollout, order: Order) -> None:
    if order.base != record.current.model:
        raise RolloutRefused(
            f"{record.alias} is answered by {record.current.model} now, not by {order.base}", status=400
        )
    for known in record.versions:
        if known.name == order.version.name:
            raise RolloutRefused(
                f"{known.name} is a version already, and a version is never written again: give this one "
                "another name (to return to the one before, take the current one back)"
            )
    if order.version.path and order.version.path in {one.path for one in record.versions}:
        raise RolloutRefused(
            f"{order.version.path} is another version's: engines would answer from its cache", status=400
        )


def _left(record: Rollout, version: Version, actor: Actor) -> Rollout:
    leaving = (*record.leaving, Leaving(version, actor.at)) if version.kind != "base" else record.leaving
    return msgspec.structs.replace(record, leaving=leaving[-LEAVING_KEPT:])


def _trial(record: Rollout) -> Trial:
    if record.trial is None:
        raise RolloutRefused(f"nothing is being rolled out to {record.alias}: {record.current.name} is there")
    return record.trial


def _with(
    record: Rollout, trial: Trial, actor: Actor, *, state: State | None = None, step: int | None = None
) -> Rollout:
    trial = msgspec.structs.replace(
        trial,
        state=trial.state if state is None else state,
        step=trial.step if step is None else step,
        since=actor.at,
    )
    return msgspec.structs.replace(record, trial=trial)
