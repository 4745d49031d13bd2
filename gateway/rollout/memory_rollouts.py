"""The store of rollouts in a dictionary: for one process that forgets. It passes the contract."""

import time
from collections import Counter
from collections.abc import Callable, Mapping

from gateway.rollout.errors import RolloutRefused
from gateway.rollout.ports import MAX_ALIASES, PROBLEMS_KEPT, Counts, RolloutTable
from gateway.rollout.record import Rollout


class MemoryRollouts:
    """A RolloutStore of this process alone."""

    def __init__(
        self, *, max_aliases: int = MAX_ALIASES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_aliases = max_aliases
        self._clock = clock
        self._records: dict[str, Rollout] = {}
        self._books: dict[tuple[str, int], dict[str, Counter[str]]] = {}
        self._problems: dict[str, dict[str, str]] = {}
        self._changes = 0
        self._leader = ("", 0.0)

    async def version(self) -> str:
        """See RolloutStore."""
        return str(self._changes)

    async def table(self) -> RolloutTable:
        """See RolloutStore."""
        return RolloutTable(str(self._changes), dict(self._records))

    async def put(self, record: Rollout) -> bool:
        """See RolloutStore."""
        known = self._records.get(record.alias)
        if record.revision != (known.revision if known else 0) + 1:
            return False
        if known is None and len(self._records) >= self._max_aliases:
            raise RolloutRefused(f"there are {self._max_aliases} aliases, which is the limit")
        self._records[record.alias] = record
        self._changes += 1
        return True

    async def count(self, alias: str, trial: int, counts: Counts) -> None:
        """See RolloutStore."""
        book = self._books.setdefault((alias, trial), {})
        for version, counters in counts.items():
            # Not `Counter.update` of a Counter: that would drop what has come to nothing or less.
            book.setdefault(version, Counter()).update(dict(counters))

    async def counts(self, alias: str, trial: int) -> Counts:
        """See RolloutStore."""
        return {version: dict(counters) for version, counters in self._books.get((alias, trial), {}).items()}

    async def prune(self, alias: str, before: int) -> None:
        """See RolloutStore."""
        for key in [key for key in self._books if key[0] == alias and key[1] < before]:
            del self._books[key]

    async def complain(self, alias: str, problems: Mapping[str, str]) -> None:
        """See RolloutStore."""
        self._problems[alias] = dict(list(problems.items())[:PROBLEMS_KEPT])

    async def problems(self, alias: str) -> Mapping[str, str]:
        """See RolloutStore."""
        return dict(self._problems.get(alias, {}))

    async def lead(self, owner: str, *, for_ms: int) -> bool:
        """See RolloutStore."""
        leader, until = self._leader
        if leader not in {"", owner} and self._clock() < until:
            return False
        self._leader = (owner, self._clock() + for_ms / 1000)
        return True
