"""The queue in a list: for tests and for trying things in one process."""


class MemoryQueue:
    """A JobQueue of this process alone; `ids` is what was pushed, in order."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def push(self, job_id: str) -> None:
        """See JobQueue."""
        self.ids.append(job_id)
