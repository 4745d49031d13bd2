"""The records of all rollouts as this replica knows them, and what it has counted of their versions.

As with nodes, the store is asked for its version once a second and for the rest only when that has changed.
While it is away, what was known stays, and so do counts that could not be told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

import msgspec
import structlog

from gateway.rollout.errors import RolloutNotFound, RolloutRefused, RolloutStoreUnavailable
from gateway.rollout.ports import RolloutStore
from gateway.rollout.record import Rollout

T = TypeVar("T")
_Counted = dict[tuple[str, int], dict[str, dict[str, int]]]
"""By alias and trial, by version, by counter."""

POLL_EVERY_S = 1.0
ANSWER_WITHIN_S = 0.9
_ATTEMPTS = 8
_VERSIONS_KEPT = 1_000
"""Of one trial, between two calls of the store."""

log = structlog.get_logger()


class Board:
    """Call `load` once, then keep `run` in the process's task group."""

    def __init__(self, store: RolloutStore, *, poll_every_s: float = POLL_EVERY_S) -> None:
        self.store = store
        self.records: Mapping[str, Rollout] = {}
        """By alias; another mapping after every change."""
        self.outage: str | None = None
        """What the last poll failed with; None while the store answers."""
        self.on_changed: Callable[[Rollout], None] = lambda _: None
        """Called with every record that is another one than before."""
        self._poll_every_s = poll_every_s
        self._version: str | None = None
        self._counted: _Counted = {}

    async def load(self) -> None:
        """Ask once. A store that is away leaves what was known."""
        await self._refresh()

    async def run(self) -> None:
        """Follow the store until cancelled; then tell it what was counted."""
        try:
            while True:
                await asyncio.sleep(self._poll_every_s)
                await self._refresh()
                await self.tell()
        finally:
            await self.tell()

    def names(self, served: Collection[str]) -> set[str]:
        """What clients ask for: aliases of what is served, in place of their versions, and all else."""
        records = self.records.values()
        versions = {version.name for one in records for version in one.versions if version.kind != "base"}
        aliases = {one.alias for one in records if any(version.name in served for version in one.versions)}
        return {*served} - versions | aliases

    def record(self, alias: str) -> Rollout:
        """Raises `RolloutNotFound`."""
        if (record := self.records.get(alias)) is None:
            raise RolloutNotFound(alias)
        return record

    async def change(self, alias: str, make: Callable[[Rollout | None], Rollout]) -> Rollout:
        """Put what `make` makes of the record as it is now (None: there is none); again if it was overtaken.

        Raises what `make` raises, `RolloutRefused`, `RolloutStoreUnavailable`.
        """
        for _ in range(_ATTEMPTS):
            table = await answered(self.store.table())
            if alias in table.unreadable:
                raise RolloutRefused(f"a newer version of the gateway wrote the rollout of {alias}")
            before = table.records.get(alias)
            after = make(before)
            after = msgspec.structs.replace(after, revision=(before.revision if before else 0) + 1)
            if await answered(self.store.put(after)):
                self._version = None
                await self._refresh()
                return after
        raise RolloutRefused(f"others keep changing the rollout of {alias}; try again")

    def count(self, record: Rollout, version: str, numbers: Mapping[str, int]) -> None:
        """Add to a version's counters, here at first. Never waits."""
        book = self._counted.get((record.alias, record.trials))
        if book is None:
            book = self._counted[record.alias, record.trials] = {}
        counters = book.get(version)
        if counters is None:
            if len(book) >= _VERSIONS_KEPT:
                return
            counters = book[version] = {}
        for name, number in numbers.items():
            if number:
                counters[name] = counters.get(name, 0) + number

    async def tell(self) -> None:
        """Tell the store what was counted; what cannot be told now is kept.

        A call whose answer is lost may be counted twice: these are for judging versions, not for money.
        """
        counted, self._counted = self._counted, {}
        for at, ((alias, trial), book) in enumerate(counted.items()):
            try:
                await answered(self.store.count(alias, trial, book))
            except RolloutStoreUnavailable:
                self._keep(dict(list(counted.items())[at:]))
                return

    def _keep(self, counted: _Counted) -> None:
        for key, book in counted.items():
            kept = self._counted.setdefault(key, {})
            for version, counters in book.items():
                sums = kept.setdefault(version, {})
                for name, number in counters.items():
                    sums[name] = sums.get(name, 0) + number

    async def _refresh(self) -> None:
        try:
            if await answered(self.store.version()) != self._version:
                table = await answered(self.store.table())
                kept = {alias: self.records[alias] for alias in table.unreadable & self.records.keys()}
                self._take({**kept, **table.records})
                self._version = table.version
                for alias in sorted(table.unreadable):
                    log.warning("a newer version wrote this rollout; it is left as it is", alias=alias)
        except RolloutStoreUnavailable as error:
            if self.outage is None:
                log.warning("store of rollouts is away", problem=str(error))
            self.outage = str(error)
        else:
            if self.outage is not None:
                log.info("store of rollouts is back")
            self.outage = None

    def _take(self, records: Mapping[str, Rollout]) -> None:
        before, self.records = self.records, records
        for alias, record in records.items():
            if record != before.get(alias):
                self.on_changed(record)


async def answered(asked: Awaitable[T]) -> T:
    """What the store answers in time. Raises `RolloutStoreUnavailable` for whatever is wrong."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await asked
    except TimeoutError:
        raise RolloutStoreUnavailable(
            f"the store of rollouts did not answer within {ANSWER_WITHIN_S} s"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        problem = f"the answer of the store of rollouts makes no sense: {type(error).__name__}"
        raise RolloutStoreUnavailable(problem) from error
