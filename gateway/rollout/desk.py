"""What operators do with rollouts: begin one, say yes, go on, go back, look at it. The use case."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.rollout.board import Board, answered
from gateway.rollout.errors import RolloutNotFound, RolloutRefused
from gateway.rollout.ports import Fleet, NodeView
from gateway.rollout.precheck import problems
from gateway.rollout.record import (
    Actor,
    Order,
    Rollout,
    Version,
    approved,
    begun,
    taken_back,
    version_name,
    widened,
)
from gateway.rollout.rules import RolloutRules
from gateway.rollout.start_order import StartOrder, rule_of
from gateway.rollout.tally import report_of, tally_of
from gateway.rollout.verdict import verdict

_TRIALS_KEPT = 5
_LONGEST_NAME = 256

ConfigReader = Callable[[str], Awaitable[bytes]]
"""Reads the `adapter_config.json` of a folder. Raises `RolloutRefused` where there is none."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Rollouts, for the control plane."""

    board: Board
    fleet: Fleet
    rules: RolloutRules
    read_config: ConfigReader

    async def start(self, wanted: StartOrder, actor: Actor) -> Rollout:
        """Begin to roll a version out. Nothing is loaded before it was checked. Raises `RolloutRefused`."""
        name = version_name(wanted.alias, wanted.version)
        nodes = self.fleet.nodes()
        base = self._base(wanted, nodes)
        version = Version(name, wanted.kind, wanted.path, base if wanted.kind == "adapter" else "")
        able = [one for one in nodes if base in one.models]
        if not able:
            raise RolloutRefused(f"no node serves {base}, so none could serve {name}")
        if wanted.kind == "adapter":
            await self._check_adapter(wanted, base, able)
        else:
            _check_model(wanted, able)
            self._check_others(wanted.alias, base)
        order = Order(
            alias=wanted.alias,
            version=version,
            base=base,
            steps=wanted.steps or self.rules.steps,
            rule=rule_of(wanted, self.rules.rule),
            is_approved=wanted.approved,
        )
        record = await self.board.change(wanted.alias, lambda now: begun(now, order, actor))
        await answered(self.board.store.prune(wanted.alias, record.trials - _TRIALS_KEPT))
        return record

    async def approve(self, alias: str, actor: Actor) -> Rollout:
        """A human says yes. Raises `RolloutNotFound`, `RolloutRefused`."""
        return await self._change(alias, lambda now: approved(now, actor))

    async def widen(self, alias: str, actor: Actor) -> Rollout:
        """On to the next step, whatever the rule says. Raises as `approve` does."""
        return await self._change(alias, lambda now: widened(now, actor))

    async def back(self, alias: str, actor: Actor) -> Rollout:
        """Back to the version before. Raises as `approve` does."""
        keep = self.rules.keep_versions
        return await self._change(alias, lambda now: taken_back(now, actor, keep=keep))

    async def problems(self, alias: str) -> Mapping[str, str]:
        """By node, why it lacks a version."""
        return await answered(self.board.store.problems(alias))

    async def report(self, alias: str, *, trial: int | None = None) -> dict[str, Any]:
        """What was counted of each version during a trial (the last one), and what the rule makes of it."""
        record = self.board.record(alias)
        number = record.trials if trial is None else trial
        counts = await answered(self.board.store.counts(alias, number))
        tallies = {name: tally_of(counters) for name, counters in counts.items()}
        under_way = record.trial
        told: dict[str, Any] = {"action": None, "why": "no trial is under way"}
        if under_way is not None and under_way.number == number:
            now = tallies.get(under_way.version.name, tally_of({}))
            before = tallies.get(record.current.name, tally_of({}))
            found = verdict(now, before, under_way.rule, step_s=under_way.rule.hold_s)
            told = {"action": found.action, "why": found.why}
        return {
            "object": "rollout.report",
            "alias": alias,
            "trial": number,
            "current": record.current.name,
            "tried": under_way.version.name if under_way is not None else None,
            "verdict": told,
            "versions": {name: report_of(tally) for name, tally in sorted(tallies.items())},
        }

    async def _change(self, alias: str, make: Callable[[Rollout], Rollout]) -> Rollout:
        def checked(now: Rollout | None) -> Rollout:
            if now is None:
                raise RolloutNotFound(alias)
            return make(now)

        return await self.board.change(alias, checked)

    def _base(self, wanted: StartOrder, nodes: Sequence[NodeView]) -> str:
        """The model that the alias stands for until then."""
        if (record := self.board.records.get(wanted.alias)) is not None:
            base = wanted.base or record.current.model
        else:
            adapters = {name for one in nodes for name in one.adapters}
            models = sorted({name for one in nodes for name in one.models} - adapters)
            known = [wanted.alias] if wanted.alias in models else models
            if not wanted.base and len(known) != 1:
                listed = ", ".join(known[:8]) or "none"
                raise RolloutRefused(f"base: which model is it of? Nodes serve {listed}", status=400)
            base = wanted.base or known[0]
        if not base.isprintable() or len(base) > _LONGEST_NAME:
            raise RolloutRefused("base: it comes back in a header, so it is printable and short", status=400)
        if wanted.alias != base and any(wanted.alias in one.models for one in nodes):
            raise RolloutRefused(
                f"nodes serve a model called {wanted.alias}: give the alias another name", status=400
            )
        return base

    async def _check_adapter(self, wanted: StartOrder, base: str, able: Sequence[NodeView]) -> None:
        if not wanted.path:
            raise RolloutRefused("path: where does the adapter lie on the nodes' disks?", status=400)
        if all(one.engine == "openai" for one in able):
            raise RolloutRefused(f"the nodes that serve {base} cannot load adapters while they run")
        if wanted.unchecked:
            return
        config = await self.read_config(wanted.local_path or wanted.path)
        hosts = [one.host for one in able]
        if found := problems(config, hosts, model=base, base=wanted.base_model):
            raise RolloutRefused("; ".join(found), status=400)

    def _check_others(self, alias: str, base: str) -> None:
        for other in self.board.records.values():
            if other.alias != alias and any(one.model == base for one in other.live):
                raise RolloutRefused(
                    f"{other.alias} is answered by {base}, too, and would lose its nodes to {alias}"
                )


def _check_model(wanted: StartOrder, able: Sequence[NodeView]) -> None:
    """A whole model comes by restarting nodes, one after the other, while others answer."""
    if wanted.path:
        raise RolloutRefused("path: a whole model lies where its node is started with it", status=400)
    if fixed := [one.name for one in able if one.is_fixed]:
        raise RolloutRefused(
            f"the configuration names the models of {', '.join(fixed[:8])}: take them out there, or "
            "they will not be healthy with another one"
        )
    if len(able) < 2:
        raise RolloutRefused("one node alone cannot be restarted while it answers: add another one first")
