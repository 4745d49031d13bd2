"""What a process has written and erased since it last told its tenants' totals."""

from collections.abc import Mapping

from history.conversation import Stored


class Book:
    """Growth by tenant; an erasure counts below zero. What was taken and could not be told is put back."""

    def __init__(self) -> None:
        self._grown: dict[str, tuple[int, int]] = {}

    def note(self, tenant: str, turns: int, size: int) -> None:
        """So many turns and bytes more, or less."""
        if turns or size:
            before = self._grown.get(tenant, (0, 0))
            self._grown[tenant] = (before[0] + turns, before[1] + size)

    def take(self) -> Mapping[str, Stored]:
        """All that was noted since the last time."""
        taken, self._grown = self._grown, {}
        return {tenant: Stored(*grown) for tenant, grown in taken.items()}

    def put_back(self, grown: Mapping[str, Stored]) -> None:
        """It is still to be told."""
        for tenant, more in grown.items():
            self.note(tenant, more.turns, more.bytes)
