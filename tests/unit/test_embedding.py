"""The vectors of turns that left the window: made once, kept while true, made anew where they are not."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from history.conversation import Conversation, ConversationKey
from history.embedding import Embedding
from history.meaning import MeaningRule, still_true
from history.memory_store import MemoryStore
from history.ports import Begun, Change, Claim
from history.recall import RecallRule
from history.recaller import Meaning, RecallCacheRule, Recaller
from history.tail_maker import past_of
from tests.contract.store_stage import turn

KEY = ConversationKey("t", "one")
CONCEPTS = ("dog", "puppy"), ("lighthouse", "beacon"), ("cello", "instrument")


@dataclass
class Words:
    """An embedder that knows three pairs of synonyms, and numbers everything else."""

    size: int = 32
    sent: list[list[str]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    is_away: bool = False

    async def of_question(self, text: str) -> list[float] | None:
        self.questions.append(text)
        return None if self.is_away else self.vector(text)

    async def of_turns(self, texts: Sequence[str]) -> Sequence[list[float]]:
        self.sent.append(list(texts))
        return [self.vector(text) for text in texts]

    def vector(self, text: str) -> list[float]:
        drawn = int.from_bytes(sha256(text.encode()).digest())
        found = [0.1 * ((drawn >> at) & 1) for at in range(self.size)]
        for at, pair in enumerate(CONCEPTS):
            found[at] = 5.0 * any(word in text.lower() for word in pair)
        return found

    @property
    def count(self) -> int:
        return sum(map(len, self.sent))


class Stage:
    """A store with one dialogue, who tends it, and who recalls."""

    def __init__(self, rule: RecallRule | None = None) -> None:
        self.store = MemoryStore()
        self.words = Words()
        self.now = 0.0
        self.rule = rule or RecallRule(meaning=MeaningRule(model="m", batch=4))
        self.recaller = self.replica()
        self.embedding = Embedding(self.store, self.words, self.rule, self.recaller.embedded)

    def replica(self) -> Recaller:
        return Recaller(
            self.store.read,
            self.rule,
            RecallCacheRule(wait_s=5.0),
            lambda: self.now,
            Meaning(embedder=self.words, read=self.store.vectors),
        )

    async def write(self, texts: Sequence[str], *, keep: int = 0, cut: int | None = None) -> None:
        begun = await self.store.begin(
            KEY, Claim(owner=f"w{keep}{len(texts)}", lease_ms=9_000, queue_limit=1)
        )
        assert isinstance(begun, Begun)
        change = Change(keep=keep, append=tuple(map(turn, texts)), at=1.0, save_branch=True, cut=cut)
        await self.store.commit(KEY, begun.lease, change)

    async def conversation(self) -> Conversation:
        found = await self.store.load(KEY)
        assert found is not None
        return found

    async def asked(self, text: str, recaller: Recaller | None = None) -> list[int]:
        now = await self.conversation()
        got = await (recaller or self.recaller).recall(KEY, text, archive=past_of(now), cut=now.cut)
        return [one.position for one in got.passages]


def told(count: int = 20, **facts: str) -> list[str]:
    return [facts.get(f"at{number}", f"filler{number}") for number in range(count)]


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_every_turn_before_the_cut_gets_one_once(stage: Stage) -> None:
    await stage.write(told(), cut=10)

    assert await stage.embedding.tend(KEY) == (10, False)
    assert await stage.embedding.tend(KEY) == (0, False)
    await stage.write(["more"], keep=20, cut=14)
    assert await stage.embedding.tend(KEY) == (4, False)
    assert [len(one) for one in stage.words.sent] == [4, 4, 2, 4]


async def test_a_long_past_is_made_some_at_a_time(stage: Stage) -> None:
    """Others want their turn, too."""
    await stage.write(told(100), cut=70)

    assert [await stage.embedding.tend(KEY) for _ in range(3)] == [(32, True), (32, True), (6, False)]


async def test_an_edit_keeps_what_is_still_right(stage: Stage) -> None:
    await stage.write(told(), cut=16)
    await stage.embedding.tend(KEY)

    await stage.write(["other", "filler13", "filler14"], keep=12, cut=15)
    before = stage.words.count
    assert await stage.embedding.tend(KEY) == (3, False)

    _, records = await stage.store.vectors(KEY, 0, 99)
    assert stage.words.count - before == 3
    assert still_true(records, await stage.store.digests(KEY)) == 15


@pytest.mark.parametrize("rule", [MeaningRule(model="other", batch=4), MeaningRule("m", turn_prefix="p: ")])
async def test_another_model_makes_all_of_them_anew(stage: Stage, rule: MeaningRule) -> None:
    await stage.write(told(), cut=16)
    await stage.embedding.tend(KEY)
    other = Embedding(stage.store, stage.words, RecallRule(meaning=rule), stage.recaller.embedded)

    assert (await other.tend(KEY))[0] == 16
    assert (await other.tend(KEY))[0] == 0


async def test_a_model_that_changes_its_dimensions_heals(stage: Stage) -> None:
    await stage.write(told(), cut=10)
    await stage.embedding.tend(KEY)
    stage.words.size = 48
    await stage.write(["more"], keep=20, cut=14)

    assert [(await stage.embedding.tend(KEY))[0] for _ in range(3)] == [4, 14, 0]


async def test_only_those_that_can_be_found_are_made() -> None:
    stage = Stage(RecallRule(max_turns=6, meaning=MeaningRule(model="m")))
    await stage.write(told(), cut=16)

    assert await stage.embedding.tend(KEY) == (6, False)
    assert (await stage.store.vectors(KEY))[0].start == 10


async def test_what_became_of_the_conversation_meanwhile_wins(stage: Stage) -> None:
    """Erased while a node was asked: nothing of it is written."""
    await stage.write(told(), cut=16)

    async def erasing(texts: Sequence[str]) -> Sequence[list[float]]:
        await stage.store.erase(KEY)
        return [[1.0] for _ in texts]

    stage.words.of_turns = erasing  # type: ignore[method-assign]  # the one call of this test
    assert await stage.embedding.tend(KEY) == (0, False)
    assert await stage.embedding.tend(KEY) == (0, False)


async def test_what_is_asked_in_other_words_is_found(stage: Stage) -> None:
    await stage.write(told(at3="we have a puppy now", at5="she keeps a beacon"), cut=16)
    assert await stage.asked("And who walks the dog?") == []
    await stage.embedding.tend(KEY)

    assert await stage.asked("And who walks the dog?") == [3]
    assert await stage.asked("My dog was loud.") == []
    assert stage.words.questions == ["And who walks the dog?"]


async def test_another_replica_reads_them_with_the_turns(stage: Stage) -> None:
    """Two trips for a cold index: the turns, and their vectors. None while it is warm."""
    await stage.write(told(at3="we have a puppy now"), cut=16)
    await stage.embedding.tend(KEY)
    other = stage.replica()

    assert await stage.asked("And who walks the dog?", other) == [3]
    assert other.reads == 2
    assert await stage.asked("And who walks the dog?", other) == [3]
    assert other.reads == 2
    await other.close()


async def test_what_another_replica_made_is_looked_for_now_and_then(stage: Stage) -> None:
    """Not with every message: it may never come."""
    await stage.write(told(at3="we have a puppy now"), cut=16)
    other = stage.replica()
    assert await stage.asked("And who walks the dog?", other) == []
    await stage.embedding.tend(KEY)

    for _ in range(3):
        assert await stage.asked("And who walks the dog?", other) == []
    assert other.reads == 2
    stage.now = 31.0
    # The one that looks does not wait for what it may find.
    assert await stage.asked("And who walks the dog?", other) == []
    await asyncio.sleep(0.05)
    assert await stage.asked("And who walks the dog?", other) == [3]
    assert other.reads == 3
    await other.close()


async def test_a_branch_does_not_recall_what_it_left(stage: Stage) -> None:
    await stage.write(told(at13="we have a puppy now"), cut=16)
    await stage.embedding.tend(KEY)
    assert await stage.asked("And who walks the dog?") == [13]

    await stage.write(["other", "filler x", "filler y"], keep=13, cut=15)

    assert await stage.asked("And who walks the dog?") == []


async def test_without_a_vector_of_the_question_words_are_left(stage: Stage) -> None:
    await stage.write(told(at3="we have a puppy called Biscuit"), cut=16)
    await stage.embedding.tend(KEY)
    stage.words.is_away = True

    assert await stage.asked("And who walks the dog?") == []
    assert await stage.asked("Who is Biscuit?") == [3]
