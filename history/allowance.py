"""What may still be stored: each tenant's total, as this process knows it, and the limits it is held against.

A turn asks nobody: it is checked against what is in memory. Behind it, every `SETTLE_S`, the process adds
what it wrote to the totals in the store and learns what the others wrote, one short call for each tenant that
was busy meanwhile. A tenant that a process has not heard of yet may write until then.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from history.conversation import Conversation, Stored
from history.errors import StoreFault
from history.limits import LimitRule, check_growth, check_tenant
from history.ports import ConversationStore

SETTLE_S = 2.0

_TENANTS = 10_000
"""Whose totals are kept in memory; those that were asked for last."""


class Allowance:
    """Says what may be stored. `run` has to be a task of the process's task group if tenants are limited."""

    def __init__(self, store: ConversationStore, rule: LimitRule) -> None:
        self._store = store
        self._rule = rule
        self._totals: OrderedDict[str, Stored] = OrderedDict()
        self._asked: set[str] = set()

    def check(self, tenant: str) -> None:
        """Raise `QuotaExceeded` if the tenant has as much as it may have, by what is known here."""
        if not self._rule.counts_tenants:
            return
        if len(self._asked) < _TENANTS:
            self._asked.add(tenant)
        check_tenant(self._totals.get(tenant, Stored()), self._rule)

    def check_room(self, conversation: Conversation, more_turns: int) -> None:
        """Raise `ConversationFull` if the conversation cannot take so many turns, and what is in them."""
        before = conversation.stored
        after = Stored(turns=before.turns + more_turns, bytes=before.bytes + 1)
        check_growth(before, after, self._rule)

    async def settle(self) -> None:
        """Tell what was written, and learn the totals of tenants that were asked for. Raises `StoreFault`."""
        asked, self._asked = self._asked, set()
        try:
            totals = await self._store.usage(asked)
        except StoreFault:
            self._asked |= asked
            raise
        for tenant, total in totals.items():
            self._totals[tenant] = total
            self._totals.move_to_end(tenant)
        while len(self._totals) > _TENANTS:
            self._totals.popitem(last=False)

    async def run(self, on_fault: Callable[[Exception], None], *, every_s: float = SETTLE_S) -> None:
        """Settle for ever. What goes wrong is told; what was written stays in the book for the next time."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.settle()
            except Exception as fault:  # noqa: BLE001 - a mistake in counting costs nobody an answer
                on_fault(fault)
