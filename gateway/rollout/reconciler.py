"""Makes nodes serve what the records want, and takes rollouts on: one replica at a time does it for all.

Whoever leads does so for a few seconds at once; if it dies, another one goes on from the records. Nothing is
remembered beside them but what failed lately.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.rollout.board import Board, answered
from gateway.rollout.errors import RolloutRefused, RolloutStoreUnavailable
from gateway.rollout.loading import Loading
from gateway.rollout.ports import Fleet, NodeView
from gateway.rollout.record import (
    Actor,
    Rollout,
    Trial,
    Turning,
    placed,
    shared,
    taken_back,
    trimmed,
    widened,
)
from gateway.rollout.rules import RolloutRules
from gateway.rollout.tally import tally_of
from gateway.rollout.verdict import verdict
from gateway.rollout.work import adapter_work, first_node, still_leaving, turned

EVERY_S = 0.5
LEADS_FOR_MS = 5_000
US = "the gateway"

log = structlog.get_logger()


class Reconciler:
    """`run` has to be a task of the process's task group."""

    def __init__(self, board: Board, fleet: Fleet, rules: RolloutRules, clock: Clock, *, owner: str) -> None:
        self._board = board
        self._fleet = fleet
        self._rules = rules
        self._clock = clock
        self._owner = owner
        self._loading = Loading(fleet, clock.steady, attempts=rules.attempts)
        self._judged: dict[str, float] = {}
        self._told: dict[str, dict[str, str]] = {}

    async def run(self) -> None:
        """Look at all of it twice a second, for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(EVERY_S)
                if self._board.records:
                    await self._round(tasks)

    async def _round(self, tasks: asyncio.TaskGroup) -> None:
        try:
            if not await answered(self._board.store.lead(self._owner, for_ms=LEADS_FOR_MS)):
                return
            nodes = self._fleet.nodes()
        except RolloutStoreUnavailable:
            return  # the board has said so
        self._loading.forget({one.name: one.models for one in nodes if one.is_healthy})
        for record in tuple(self._board.records.values()):
            try:
                await self._tend(record, nodes, tasks)
            except GatewayError as fault:
                # A store is away, or somebody was quicker: the next round sees what is true then.
                log.info("a rollout waits", alias=record.alias, reason=str(fault))
            except Exception:
                # A mistake of ours costs this rollout its round, not everybody their answers.
                log.exception("a rollout was not tended", alias=record.alias)

    async def _tend(self, record: Rollout, nodes: Sequence[NodeView], tasks: asyncio.TaskGroup) -> None:
        await self._turn(record, nodes)
        work = adapter_work(record, nodes, now=self._clock.wall(), drain_s=self._rules.drain_s)
        for node, version in work.loads:
            self._loading.load(node, version, tasks)
        for node, name in work.unloads:
            self._loading.unload(node, name, tasks)
        trial = record.trial
        if trial is not None and trial.state == "loading":
            await self._try(record, trial, nodes)
        elif trial is not None and trial.state == "sharing":
            await self._judge(record, trial)
        await self._tidy(record, nodes)
        await self._complain(record)

    # a trial

    async def _try(self, record: Rollout, trial: Trial, nodes: Sequence[NodeView]) -> None:
        """Its first node: chosen, loaded, and asked one thing before anybody else may ask it."""
        name = trial.version.name
        if trial.version.kind == "model":
            node = next((one.name for one in nodes if one.is_healthy and name in one.models), "")
            has_it = bool(node)
        else:
            node = first_node(record, nodes)
            has_it = any(one.name == node and name in one.models for one in nodes)
            if node != trial.first_node and node:
                await self._change(record, lambda now: placed(now, node))
                return
        if has_it:
            await self._smoke(record, node, name)
        elif node and self._loading.has_given_up(node, name):
            failed = self._loading.failed(node, name)
            await self._back(record, f"{node} did not load it: {failed.problem if failed else ''}")

    async def _smoke(self, record: Rollout, node: str, name: str) -> None:
        try:
            said = await self._fleet.say(
                node, name, self._rules.smoke_prompt, max_tokens=self._rules.smoke_tokens
            )
        except GatewayError as fault:
            await self._back(record, f"asked on {node}, it failed: {fault}")
            return
        if not said.strip():
            await self._back(record, f"asked on {node}, it answered nothing")
            return
        actor = Actor(US, self._clock.wall(), f"it answered on {node}")
        await self._change(record, lambda now: shared(now, actor))

    async def _judge(self, record: Rollout, trial: Trial) -> None:
        now = self._clock.steady()
        if now - self._judged.get(record.alias, -self._rules.judge_s) < self._rules.judge_s:
            return
        self._judged[record.alias] = now
        counts = await answered(self._board.store.counts(record.alias, trial.number))
        found = verdict(
            tally_of(counts.get(trial.version.name, {})),
            tally_of(counts.get(record.current.name, {})),
            trial.rule,
            step_s=self._clock.wall() - trial.since,
        )
        actor = Actor("the rule", self._clock.wall(), found.why)
        if found.action == "back":
            await self._change(record, lambda now: taken_back(now, actor, keep=self._rules.keep_versions))
        elif found.action == "widen":
            await self._change(record, lambda now: widened(now, actor))

    async def _back(self, record: Rollout, why: str) -> None:
        actor = Actor(US, self._clock.wall(), why)
        await self._change(record, lambda now: taken_back(now, actor, keep=self._rules.keep_versions))

    # nodes

    async def _turn(self, record: Rollout, nodes: Sequence[NodeView]) -> None:
        """Whole models: one node at a time is drained, restarted by its operator, and given back."""
        wanted = turned(record, nodes, now=self._clock.wall())
        at = record.turning
        if at is None and any(one.turning is not None for one in self._board.records.values()):
            return  # one node at a time, whoever's it is
        if at is not None and wanted is None:
            trial = record.trial
            if trial is not None and trial.state == "loading" and at.to == trial.version.name:
                return  # it is asked one thing first
            if any(one.name == at.node for one in nodes):
                await self._fleet.undrain(at.node)
        if wanted is not None and any(one.name == wanted.node and not one.is_draining for one in nodes):
            await self._fleet.drain(wanted.node)
        if wanted != at:
            await self._change(record, lambda now: _turning(now, wanted))

    async def _tidy(self, record: Rollout, nodes: Sequence[NodeView]) -> None:
        """Earlier versions beyond those that are kept leave; those that left are forgotten."""
        actor = Actor(US, self._clock.wall(), f"{self._rules.keep_versions} earlier versions stay loaded")
        kept = trimmed(record, actor, keep=self._rules.keep_versions)
        leaving = still_leaving(kept, nodes, now=self._clock.wall())
        if kept != record or leaving != record.leaving:
            await self._change(record, lambda _: msgspec.structs.replace(kept, leaving=leaving))

    async def _complain(self, record: Rollout) -> None:
        problems = self._loading.problems({one.name for one in record.versions})
        if problems != self._told.get(record.alias, {}):
            await answered(self._board.store.complain(record.alias, problems))
            self._told[record.alias] = problems

    async def _change(self, record: Rollout, make: Callable[[Rollout], Rollout]) -> None:
        """Only what was looked at is changed: if somebody was quicker, the next round decides anew."""

        def checked(now: Rollout | None) -> Rollout:
            if now is None or now.revision != record.revision:
                raise RolloutRefused(f"the rollout of {record.alias} was changed meanwhile")
            return make(now)

        after = await self._board.change(record.alias, checked)
        log.info("rollout goes on", alias=record.alias, decision=_newest(after))


def _turning(record: Rollout, turning: Turning | None) -> Rollout:
    return msgspec.structs.replace(record, turning=turning)


def _newest(record: Rollout) -> str:
    return f"{record.history[-1].version}: {record.history[-1].what}" if record.history else ""
