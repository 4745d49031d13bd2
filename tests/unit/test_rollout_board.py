"""What a replica knows of rollouts while the store comes and goes, and which version it chooses."""

from collections.abc import Iterable

import msgspec
import pytest

from gateway.moment import Moment
from gateway.nodes.usage import Usage
from gateway.request import ChatRequest, read_request
from gateway.rollout.board import Board
from gateway.rollout.errors import RolloutNotFound, RolloutRefused, RolloutStoreUnavailable
from gateway.rollout.memory_rollouts import MemoryRollouts
from gateway.rollout.ports import Counts, RolloutTable
from gateway.rollout.record import Actor, Order, Rollout, Trial, Version, begun
from gateway.rollout.verdict import Rule
from gateway.rollout.versions import Versions
from history.conversation import Binding, Conversation, ConversationKey

NOW = Moment(steady=1000.0, wall=5000.0)
KEY = ConversationKey("tenant", "dialogue")
OLD, MID, NEW = (Version(f"luna--{n}", "adapter", f"/a/{n}", "small") for n in (1, 2, 3))
WHO = Actor("ada", 1.0)


class Store(MemoryRollouts):
    """One that goes away, is overtaken, or holds what nobody here can read."""

    is_away = False
    overtaken = 0
    unreadable: frozenset[str] = frozenset()

    async def version(self) -> str:
        self._check()
        return await super().version() + str(self.unreadable)

    async def table(self) -> RolloutTable:
        table = await super().table()
        known = {alias: one for alias, one in table.records.items() if alias not in self.unreadable}
        return msgspec.structs.replace(table, records=known, unreadable=self.unreadable)

    async def put(self, record: Rollout) -> bool:
        self._check()
        if self.overtaken:
            self.overtaken -= 1
            return False
        return await super().put(record)

    async def count(self, alias: str, trial: int, counts: Counts) -> None:
        self._check()
        await super().count(alias, trial, counts)

    def _check(self) -> None:
        if self.is_away:
            raise RolloutStoreUnavailable("it is away")


class Places:
    """Nodes that serve these, and keep what they had so likely."""

    def __init__(self, *serves: str, odds: float = 1.0) -> None:
        self.served, self.kept = set(serves), odds

    def serves(self, model: str) -> bool:
        return model in self.served

    def odds(self, name: str, age_s: float, now: float) -> float:
        return self.kept


def made(before: Rollout | None) -> Rollout:
    return begun(before, Order("luna", NEW, "small", (1.0,), Rule()), WHO)


def record(*, share: float = 0.0) -> Rollout:
    trial = Trial(1, NEW, "sharing", (share,), Rule()) if share else None
    return Rollout("luna", MID, trial=trial, earlier=(OLD,), trials=1)


def request(model: str = "luna", **fields: object) -> ChatRequest:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    return read_request(msgspec.json.encode(body), {}, adopt_cache_key=False)


def versions(places: Places, *records: Rollout) -> Versions:
    board = Board(MemoryRollouts())
    board.records = {one.alias: one for one in records}
    return Versions(board, places)


def bound(version: str) -> Conversation:
    return Conversation(turn_count=3, binding=Binding("node", b"link", 100, 4000.0, version))


async def test_what_was_known_and_counted_outlasts_an_outage() -> None:
    """And is told once the store is back."""
    store = Store()
    board = Board(store)
    await board.change("luna", made)
    store.is_away = True
    board.count(board.record("luna"), "small", {"answers": 2})
    await board.tell()
    await board.load()
    assert (["luna"], "it is away") == (list(board.records), board.outage)
    board.count(board.record("luna"), "small", {"answers": 1, "errors": 0})
    store.is_away = False
    await board.tell()
    await board.load()
    await board.tell()

    assert {"small": {"answers": 3}} == await store.counts("luna", 1)
    assert board.outage is None


async def test_a_change_is_made_anew_where_another_one_was_quicker() -> None:
    """A few times; then whoever wants it is told."""
    store = Store()
    board, seen = Board(store), list[str]()
    board.on_changed = lambda one: seen.append(one.alias)
    store.overtaken = 3
    assert 1 == (await board.change("luna", made)).revision
    assert ["luna"] == seen
    store.overtaken = 100
    with pytest.raises(RolloutRefused, match="keep changing"):
        await board.change("luna", lambda one: one or record())
    with pytest.raises(RolloutNotFound):
        board.record("nova")


async def test_what_a_newer_program_wrote_stays_as_it_was_known() -> None:
    """It is not changed from here either."""
    store = Store()
    board = Board(store)
    before = await board.change("luna", made)
    store.unreadable = frozenset({"luna", "other"})
    await board.load()

    assert {"luna": before} == board.records
    with pytest.raises(RolloutRefused, match="newer version"):
        await board.change("luna", made)


@pytest.mark.parametrize(
    ("serves", "wanted"),
    [
        ([OLD, MID, NEW], NEW.name),
        ([OLD, MID], MID.name),
        ([OLD], OLD.name),
        ([], NEW.name),
    ],
)
def test_where_nobody_has_a_version_the_one_before_answers(serves: Iterable[Version], wanted: str) -> None:
    """Rather than nobody; with no node at all the refusal is the wanted one's."""
    chosen = versions(Places(*(one.name for one in serves)), record(share=1.0))
    got = chosen.of_stateless(request(user="ada"), "tenant")

    assert ("luna", wanted, wanted) == (got.model, got.version, got.target)


def test_upkeep_moves_what_it_warms_and_reads_where_the_kv_is() -> None:
    """A memory is made where the conversation is; a warm prefix is made where it belongs."""
    chosen = versions(Places(OLD.name, MID.name), record())
    asked = request()

    def at(version: str, *, moves: bool) -> str:
        return chosen.of_upkeep(asked, KEY, bound(version), moves=moves, now=NOW).version

    assert (OLD.name, MID.name) == (at(OLD.name, moves=False), at(OLD.name, moves=True))
    assert (MID.name, MID.name) == (at("unknown", moves=False), at("", moves=True))
    assert chosen.is_misplaced("luna", OLD.name)
    assert not chosen.is_misplaced("luna", MID.name)
    assert not chosen.is_misplaced("luna", "")
    assert not chosen.is_misplaced("small", OLD.name)
    assert not versions(Places(OLD.name), record()).is_misplaced("luna", OLD.name)


def test_a_model_without_a_rollout_is_as_it_was() -> None:
    """Nothing is counted, nothing is named."""
    chosen, asked = versions(Places("small"), record()), request("small")
    assert asked is chosen.of_stateless(asked, "tenant")
    assert asked is chosen.of_upkeep(asked, KEY, bound(""), moves=True, now=NOW)
    assert ("small", MID.name) == (chosen.plain("small"), chosen.plain("luna"))
    chosen.answered(asked, Usage(prompt_tokens=3, completion_tokens=1), 0.1)
    chosen.failed(asked)
    assert asked.target == "small"
