"""All parts of rollouts, put together over a store and the nodes."""

import asyncio
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.nodes.membership import Membership
from gateway.rollout.adapter_config import read_adapter_config
from gateway.rollout.board import Board
from gateway.rollout.desk import Desk
from gateway.rollout.fleet import RosterFleet
from gateway.rollout.ports import RolloutStore
from gateway.rollout.reconciler import Reconciler
from gateway.rollout.rules import RolloutRules


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Those of one process."""

    board: Board
    desk: Desk
    reconciler: Reconciler

    async def run(self) -> None:
        """Follow the store, and do what is due, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.board.run())
            tasks.create_task(self.reconciler.run())


def rollouts_over(
    store: RolloutStore, membership: Membership, rules: RolloutRules, clock: Clock, *, replica: str
) -> Rollouts:
    """The parts; `replica`: unique to this process."""
    board, fleet = Board(store), RosterFleet(membership, within_s=rules.smoke_s)
    return Rollouts(
        board,
        Desk(board, fleet, rules, read_adapter_config),
        Reconciler(board, fleet, rules, clock, owner=replica),
    )
