"""What a turn moves and what it costs the server, at turn 10 and at turn 10,000 of a dialogue.

Bytes and times are the server's own count. All turns here are alike, so that lengths can be compared; a whole
cycle of the window is measured, from one cut to the next, wherever the window is full.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from bench.million_turns.loading import TIMEOUT_S
from bench.million_turns.population import TENANT, Outline
from bench.million_turns.talk import Said, Speaker
from bench.million_turns.writing import take_turn, write
from bench.valkey_server import Server
from history.conversation import Binding, ConversationKey, Memory
from history.redis_store import RedisStore
from history.store_rules import MEMORIES_KEPT
from history.window import WindowRule, stateless_cut, step

_Kind = TypeVar("_Kind")

LENGTHS = (10, 100, 1_000, 10_000)
_CYCLES = 20
_CANDIDATES = 400


@dataclass(frozen=True, slots=True)
class Form:
    """How a history is kept. `versions`: of the memory, at most."""

    rule: WindowRule
    versions: int

    @property
    def name(self) -> str:
        """As the table has it."""
        memory = f"memory of {self.versions} versions" if self.versions else "no memory"
        return f"{self.rule.min_turns} to {self.rule.max_turns} turns, {memory}"


FORMS = (
    Form(WindowRule(min_turns=5, max_turns=10), versions=0),
    Form(WindowRule(), versions=MEMORIES_KEPT),
)
"""A small window, full at turn 10 already, so that like is compared with like; and the shipped one."""


class Typical:
    """Always says the same, each thing of about the mean size of its kind."""

    def __init__(self) -> None:
        speakers = [Speaker(f"typical/{number}") for number in range(_CANDIDATES)]
        self.turn = _of_mean_size([speaker.turn() for speaker in speakers])
        self._persona = _of_mean_size([speaker.persona() for speaker in speakers])
        self._memory = _of_mean_size([speaker.memory(0, 0) for speaker in speakers])
        self._binding = speakers[0].binding()

    def persona(self) -> bytes:
        """The system message."""
        return self._persona

    def memory(self, covers_to: int, version: int) -> Memory:
        """A version of the memory."""
        return msgspec.structs.replace(self._memory, covers_to=covers_to, version=version)

    def binding(self) -> Binding:
        """Where the KV lies."""
        return self._binding


@dataclass(frozen=True, slots=True)
class Cost:
    """Per turn, at one length of the dialogue. Bytes as the gateway sees them, on the wire."""

    form: str
    length: int
    turns: int
    """How many were measured."""
    window: float
    """Turns in the window when a turn begins, on average."""
    round_trips: float
    sent: float
    received: float
    script_us: float
    """The scripts alone, by the server's clock."""
    server_us: float
    """All CPU time of the server: also reading, answering and its append-only file."""


def costs(server: Server) -> Iterator[Cost]:
    """Every form at every length, one after the other."""
    for form in FORMS:
        for length in LENGTHS:
            yield asyncio.run(_cost(server, form, length))


async def _cost(server: Server, form: Form, length: int) -> Cost:
    store, voice = RedisStore(server.url, timeout_s=TIMEOUT_S), Typical()
    cycle = step(form.rule) if length >= form.rule.max_turns else 1
    cycles = min(_CYCLES, max(1, length // (12 * cycle)))
    keys = [
        ConversationKey(TENANT, f"conv_{form.rule.max_turns}_{length}_{copy}")
        for copy in range(_CYCLES // cycles)
    ]
    try:
        for key in keys:
            outline = Outline(key=key, user="economist", length=length, seed=key.id, versions=form.versions)
            await write(store, outline, itertools.repeat(Said(voice.turn)), voice=voice, rule=form.rule)
        idle = _Counters.read(server).until(_Counters.read(server))
        before, trips = _Counters.read(server), store.round_trips
        for key in keys:
            for number in range(cycle * cycles):
                await take_turn(store, key, f"{key.id}-{number}", voice.turn, voice=voice, rule=form.rule)
        trips = store.round_trips - trips
        moved = before.until(_Counters.read(server))
    finally:
        await store.close()
    turns = len(keys) * cycle * cycles
    windows = [count - stateless_cut(count, form.rule) for count in range(length, length + cycle * cycles)]
    return Cost(
        form=form.name,
        length=length,
        turns=turns,
        window=sum(windows) / len(windows),
        round_trips=trips / turns,
        sent=(moved.input_bytes - idle.input_bytes) / turns,
        received=(moved.output_bytes - idle.output_bytes) / turns,
        script_us=moved.script_us / turns,
        server_us=(moved.cpu_s - idle.cpu_s) / turns * 1e6,
    )


def _of_mean_size(candidates: Sequence[_Kind]) -> _Kind:
    sizes = [len(msgspec.msgpack.encode(one)) for one in candidates]
    mean = sum(sizes) / len(sizes)
    return min(zip(sizes, candidates, strict=True), key=lambda one: abs(one[0] - mean))[1]


@dataclass(frozen=True, slots=True)
class _Counters:
    """What the server counts from its start on."""

    input_bytes: int
    output_bytes: int
    script_us: int
    cpu_s: float

    @classmethod
    def read(cls, server: Server) -> "_Counters":
        said = server.info("stats", "cpu", "commandstats")
        return cls(
            input_bytes=int(said["total_net_input_bytes"]),
            output_bytes=int(said["total_net_output_bytes"]),
            script_us=int(said["cmdstat_evalsha"]["usec"]),
            cpu_s=float(said["used_cpu_user"]) + float(said["used_cpu_sys"]),
        )

    def until(self, later: "_Counters") -> "_Counters":
        return _Counters(
            later.input_bytes - self.input_bytes,
            later.output_bytes - self.output_bytes,
            later.script_us - self.script_us,
            later.cpu_s - self.cpu_s,
        )
