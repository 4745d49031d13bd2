"""One gateway process of a wild race, run as a program: `racing_replica.py URL TENANT NAME SEED OPERATIONS`.

It talks, asks for other answers, goes back, forks, compacts, and looks at all that is kept, on conversations
that another process uses as well. Those called `long…` live for an hour, those called `brief…` for less time
than a slow turn takes. Each answer names itself and its place, `A3@7`; each summary lists the answers that it
covers, so that a look at any prompt or any store tells whether something is lost, doubled, or out of place.

Each line that it prints is what it tried or what became of it, as JSON; it ends with an error where something
was wrong.
"""

import asyncio
import itertools
import json
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from history.compaction import CompactionRule, Instructions
from history.compactor import Compactor
from history.conversation import Conversation, ConversationKey, Reply, Turn
from history.dialogue import Dialogues
from history.editing import Editor
from history.errors import HistoryError
from history.forking import Forks, Until
from history.incoming import ANEW, Incoming, read_incoming
from history.lease_keeper import LeaseKeeper
from history.message import answer, text_of
from history.open_turn import Answer, Ask, OpenTurn
from history.ports import Begun
from history.prompt import Prompt
from history.redis_store import RedisStore
from history.rules import DialogueRules
from history.siblings import select
from history.window import WindowSetting

WORKERS = 4
LONG_TTL_MS, BRIEF_TTL_MS = 3_600_000, 120
LONG_LEASE_S, BRIEF_LEASE_S = 5.0, 0.15
_LABEL = re.compile(r"[A-Z]\d+@\d+")
_MEMORY = re.compile(r"<memory>.*?</memory>", re.DOTALL)


def labels(text: str) -> list[str]:
    """The answers that a text names."""
    return _LABEL.findall(text)


def labels_of(turns: tuple[Turn, ...]) -> list[str]:
    """The answers of these turns, one each."""
    return [labels(text_of(turn.messages[-1]))[0] for turn in turns]


def places(names: list[str]) -> list[int]:
    return [int(name.partition("@")[2]) for name in names]


def check(*, holds: bool, claim: str, shown: object) -> None:
    if not holds:
        raise AssertionError(f"{claim}: {shown}")


def check_prompt(prompt: Prompt, keep: int) -> None:
    """Memory and window name each answer once, at its place, and the window reaches to the new message."""
    whole = prompt.json().decode()
    remembered = labels("".join(_MEMORY.findall(whole)))
    in_window = labels(_MEMORY.sub("", whole))
    at = places(in_window)
    check(holds=places(remembered) == list(range(len(remembered))), claim="memory has all", shown=remembered)
    check(holds=at == list(range(keep - len(at), keep)), claim="window is whole", shown=(at, keep))
    check(holds=len(remembered) + len(at) <= keep, claim="memory and window overlap", shown=whole)


async def check_kept(store: RedisStore, key: ConversationKey, conversation: Conversation) -> list[str]:
    """Everything of a conversation that nobody writes to; all answers that it has, branches included."""
    turns = await store.read(key, 0, 100_000)
    active = labels_of(turns)
    check(holds=places(active) == list(range(conversation.turn_count)), claim="not whole", shown=active)
    check(holds=len(await store.digests(key)) == len(turns), claim="digests", shown=active)
    covered = [one.covers_to for one in conversation.memories]
    numbers = [one.version for one in conversation.memories]
    check(holds=covered == sorted(set(covered)), claim="versions out of order", shown=covered)
    check(holds=numbers == sorted(set(numbers)), claim="versions out of order", shown=numbers)
    for memory in conversation.memories:
        said = labels(memory.summary)
        check(holds=said == active[: memory.covers_to], claim="memory is not true", shown=(said, active))
    for number in range(1, conversation.branches + 1):
        active += labels_of((await store.branch(key, number))[1])
    doubled = [name for name, count in Counter(active).items() if count > 1]
    check(holds=not doubled, claim="doubled", shown=doubled)
    return active


@dataclass
class Progress:
    """How far a conversation had come when it was last looked at: it never goes back by itself."""

    created_at: float = 0.0
    memory_version: int = 0
    branches: int = 0
    cut: int = 0
    shows: int = 0
    newest: tuple[int, bytes] = (0, b"")
    """The last turn: its place, and what it says."""

    async def note(self, store: RedisStore, key: ConversationKey, now: Conversation) -> None:
        """Compare, under a lease, and take over."""
        digests = await store.digests(key)
        if now.created_at == self.created_at:
            place, said = self.newest
            check(holds=now.memory_version >= self.memory_version, claim="memory went back", shown=now)
            # Another answer that was selected is the one thing that takes turns back without a new branch.
            if now.branches == self.branches and digests[place : place + 1] == (said,):
                check(holds=now.cut >= self.cut, claim="cut went back", shown=(self, now))
                check(holds=now.shows >= self.shows, claim="summary went back", shown=(self, now))
        self.created_at, self.memory_version = now.created_at, now.memory_version
        self.branches, self.cut, self.shows = now.branches, now.cut, now.shows
        self.newest = (len(digests) - 1, digests[-1]) if digests else (0, b"")


@dataclass
class Kind:
    """The conversations of one life span, and the use cases over them."""

    store: RedisStore
    rules: DialogueRules
    is_brief: bool
    names: "itertools.count[int]"
    dice: random.Random
    who: str
    progress: dict[ConversationKey, Progress] = field(default_factory=dict)
    stored: dict[tuple[ConversationKey, float], set[str]] = field(default_factory=dict)
    """What this process was told is stored, by conversation and when that began."""

    def __post_init__(self) -> None:
        self.keeper = LeaseKeeper(self.store, clock=time.time)
        self.dialogues = Dialogues(self.store, self.keeper, self.rules, time.time)
        self.editor = Editor(self.dialogues, self.store, self.rules, time.time, self.name)
        self.forks = Forks(self.editor, self.store)
        texts = Instructions(english="Up to {last}.", chinese="Up to {last}.")
        self.compactor = Compactor(self.store, self.rules, texts, time.time)

    def name(self) -> str:
        return f"{self.who}-{next(self.names)}"

    def ask(self) -> Ask:
        return Ask(owner=self.name(), on_stop=lambda _: None, on_busy="queue")

    async def talk(self, key: ConversationKey) -> None:
        label = f"{self.who}{next(self.names)}"
        await self.turn(key, label, read_incoming(msgspec.json.encode([{"role": "user", "content": label}])))

    async def anew(self, key: ConversationKey) -> None:
        await self.turn(key, f"{self.who}{next(self.names)}", ANEW)

    async def go_back(self, key: ConversationKey) -> None:
        """A client sends a stretch of the dialogue and another message behind it."""
        conversation = await self.store.load(key)
        count = conversation.turn_count if conversation else 0
        first = max(0, count - self.dice.randint(1, 5))
        turns = await self.store.read(key, first, min(count, first + 2))
        label = f"{self.who}{next(self.names)}"
        messages = [msgspec.Raw(message) for turn in turns for message in turn.messages]
        raw = msgspec.json.encode([*messages, {"role": "user", "content": label}])
        await self.turn(key, label, read_incoming(raw))

    async def turn(self, key: ConversationKey, label: str, incoming: Incoming) -> None:
        turn = await self.dialogues.open(key, incoming, self.ask())
        assert isinstance(turn, OpenTurn)
        before = turn.layout.conversation
        try:
            keep = turn.layout.plan.keep
            await self.progress.setdefault(key, Progress()).note(self.store, key, before)
            if turn.layout.plan.adopted:
                await turn.release()  # it would bring back what expired, or what the other has replaced
                return
            check_prompt(turn.prompt, keep)
            name = f"{label}@{keep}"
            tell(tried=name, to=key.id)
            await asyncio.sleep(self.dice.choice((0, 0, 0.005, 0.4 if self.is_brief else 0.02)))
            said = answer({"content": name})
        except BaseException:
            await turn.release()
            raise
        ended = await turn.commit(Answer(message=said, reply=Reply(prompt_tokens=1)))
        # The new conversation is the old one still: what was kept under a lease cannot be another's.
        started = ended.conversation.created_at
        check(holds=before.created_at in (0, started), claim="another conversation", shown=(before, started))
        self.stored.setdefault((key, started), set()).add(name)
        tell(stored=name, to=key.id)

    async def choose(self, key: ConversationKey) -> None:
        conversation = await self.store.load(key)
        count = conversation.turn_count if conversation else 0
        await select(self.editor, self.store, key, index=max(0, count - self.dice.randint(1, 4)), number=1)

    async def fork(self, key: ConversationKey) -> ConversationKey:
        conversation = await self.store.load(key)
        count = conversation.turn_count if conversation else 0
        until = Until(self.dice.randrange(count)) if count and self.dice.random() < 0.5 else None
        new = ConversationKey(key.tenant, f"{'brief' if self.is_brief else 'long'}-copy-{self.name()}")
        await self.forks.fork(key, new, until, None)
        tell(forked=new.id, to=new.id)
        return new

    async def compact(self, key: ConversationKey) -> None:
        outlook = await self.dialogues.outlook(key)
        if outlook is None or outlook.due is None:
            return
        wait_s = self.dice.choice((0, 0.01, 0.4 if self.is_brief else 0.05))

        async def scribe(_: Conversation, prompt: Prompt) -> str:
            await asyncio.sleep(wait_s)
            *said, asked = map(text_of, prompt.messages)
            first_of_last = asked.removeprefix("Up to ").removesuffix(".")
            at = max(at for at, text in enumerate(said) if text == first_of_last)
            return "SUMMARY:\n" + " ".join(labels(" ".join(said[: at + 2])))

        outcome = await self.compactor.compact(key, outlook.due, scribe)
        tell(compacted=outcome, to=key.id)

    async def audit(self, key: ConversationKey) -> None:
        """Look at everything while nobody may write."""
        begun = await self.dialogues.hold(key, self.ask())
        try:
            await self.looked_at(key, begun)
        finally:
            await self.dialogues.release(key, begun.lease)

    async def looked_at(self, key: ConversationKey, begun: Begun) -> None:
        known = begun.conversation
        kept = await check_kept(self.store, key, known) if not begun.is_new else []
        # A process that was stopped for long may find it expired while it looks; then it was not whole.
        lost = self.stored.get((key, known.created_at), set()).difference(kept)
        check(holds=not lost, claim="lost", shown=(lost, known.created_at))


def tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def kind(url: str, who: str, dice: random.Random, names: "itertools.count[int]", *, is_brief: bool) -> Kind:
    rules = DialogueRules(
        window=WindowSetting(min_turns=3, max_turns=6),
        compaction=CompactionRule(lead_turns=2),
        lease_s=BRIEF_LEASE_S if is_brief else LONG_LEASE_S,
    )
    store = RedisStore(url, ttl_ms=BRIEF_TTL_MS if is_brief else LONG_TTL_MS)
    return Kind(store=store, rules=rules, is_brief=is_brief, names=names, dice=dice, who=who)


async def work(kinds: tuple[Kind, Kind], pools: tuple[list[ConversationKey], ...], operations: int) -> None:
    """One after the other, on whatever the dice say; what is refused is told and forgotten."""
    dice = kinds[0].dice
    for _ in range(operations):
        at = dice.randrange(2)
        one, pool = kinds[at], pools[at]
        key = dice.choice(pool)
        acts = [one.talk] * 6 + [one.go_back] * 2 + [one.anew, one.choose] + [one.compact] * 4 + [one.audit]
        try:
            if dice.random() < 0.08:
                pool.append(await one.fork(key))
            else:
                await dice.choice(acts)(key)
        except HistoryError as error:
            tell(refused=type(error).__name__, to=key.id)


async def main(url: str, tenant: str, who: str, seed: int, operations: int) -> None:
    dice, names = random.Random(seed), itertools.count()
    kinds = tuple(kind(url, who, dice, names, is_brief=is_brief) for is_brief in (False, True))
    pools = tuple([ConversationKey(tenant, f"{name}-{n}") for n in range(2)] for name in ("long", "brief"))
    tell(ready=who)
    await asyncio.to_thread(sys.stdin.readline)
    # The leases of brief conversations are kept alive by nobody, as those of a gateway that hangs.
    keeper = asyncio.create_task(kinds[0].keeper.run(tick_s=0.1))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(WORKERS):
            tasks.create_task(work((kinds[0], kinds[1]), pools, operations))
    keeper.cancel()
    for one in kinds:
        await one.store.close()


if __name__ == "__main__":
    _, address, tenant_name, name, dice_seed, count = sys.argv
    asyncio.run(main(address, tenant_name, name, int(dice_seed), int(count)))
