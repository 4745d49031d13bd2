"""Where the server's memory goes, part by part, by its own count of every key of every conversation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.million_turns.population import Outline
from bench.valkey_server import Server
from history.redis_keys import conversation_keys, user_keys

_PIPELINED = 500
_FIELDS = ("memories", "persona")


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes. `parts` add up to `used`."""

    used: int
    """All that the server has allocated since it was empty."""
    resident: int
    """What the operating system gives it."""
    parts: dict[str, int]
    aof: int
    """The append-only file as it has grown."""
    aof_rewritten: int
    """The same right after a rewrite."""
    fork_ms: float
    """How long the server stood still for the newest rewrite."""
    allocator: str


def memory_use(server: Server, outlines: Iterable[Outline], *, empty: int) -> MemoryUse:
    """Ask for everything. `empty`: what the server used before anything was loaded."""
    server.wait_for_rewrite()
    grown = int(server.info("persistence")["aof_current_size"])
    memory = server.info("memory")
    parts = _parts(server, list(outlines))
    used = int(memory["used_memory"]) - empty
    parts["everything else"] = used - sum(parts.values())
    server.client.bgrewriteaof()
    server.wait_for_rewrite()
    return MemoryUse(
        used=used,
        resident=int(memory["used_memory_rss"]),
        parts=parts,
        aof=grown,
        aof_rewritten=int(server.info("persistence")["aof_current_size"]),
        fork_ms=int(server.info("stats")["latest_fork_usec"]) / 1e3,
        allocator=str(memory["mem_allocator"]),
    )


def _parts(server: Server, outlines: Sequence[Outline]) -> dict[str, int]:
    sums = dict.fromkeys(("turns", "digests", "meta", "memories", "persona", "branches", "user indexes"), 0)
    for first in range(0, len(outlines), _PIPELINED):
        some = outlines[first : first + _PIPELINED]
        for turns, digests, meta, branches, memories, persona in _of_conversations(server, some):
            sums["turns"] += turns
            sums["digests"] += digests
            sums["meta"] += meta - memories - persona
            sums["memories"] += memories
            sums["persona"] += persona
            sums["branches"] += branches
    users = sorted({(one.key.tenant, one.user) for one in outlines})
    for first in range(0, len(users), _PIPELINED):
        keys = [user_keys(*user).conversations for user in users[first : first + _PIPELINED]]
        sums["user indexes"] += sum(_usages(server, keys))
    return sums


def _of_conversations(server: Server, outlines: Sequence[Outline]) -> list[tuple[int, ...]]:
    """Turns, digests, meta, branches, and of meta: memories, persona."""
    keys = [conversation_keys(one.key) for one in outlines]
    columns = [
        _usages(server, [one.turns for one in keys]),
        _usages(server, [one.digests for one in keys]),
        _usages(server, [one.meta for one in keys]),
        _usages(server, [one.branches for one in keys]),
        *(_field_sizes(server, [one.meta for one in keys], field) for field in _FIELDS),
    ]
    return list(zip(*columns, strict=True))


def _usages(server: Server, keys: Sequence[bytes]) -> list[int]:
    with server.client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.memory_usage(key, samples=0)  # 0: count every element
        return [int(answer or 0) for answer in pipeline.execute()]


def _field_sizes(server: Server, keys: Sequence[bytes], field: str) -> list[int]:
    with server.client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hstrlen(key, field)
        return [int(answer) for answer in pipeline.execute()]
