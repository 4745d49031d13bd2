"""What a dataset of many dialogues costs: rate, CPU and memory of `friendo datasets export`, from a file or
a store.

    python -m bench.datasets [--conversations 100000] [--turns 10] [--from file|store] [--form
    sharegpt|alpaca]

The dialogues are made up, by a seed: each user has a few, one in fifty texts has an e-mail address or a
number in it, one answer in twenty is rated, one dialogue in a hundred is a copy. Everything happens in a
folder that is gone afterwards. The export runs in a process of its own, whose CPU time and peak memory are
what is printed.
"""

import argparse
import asyncio
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvloop

from bench.store_round_trip import valkey
from history.conversation import Conversation, ConversationKey, Reply, Turn
from history.export_lines import head_line, turn_line
from history.items import items_of
from history.ports import Begun, Change, Claim, ConversationStore
from history.redis_store import RedisStore
from training.datasets.folder import DatasetFolder
from training.datasets.gathering import Gathering
from training.datasets.rules import DatasetRules, Form
from training.datasets.sources import exported_talks, stored_ids, stored_talks

TENANT = "bench"
_TEXT = """
the rain was still falling when she came home and put the kettle on because tea helps with
everything you know my brother called today he wants to visit in spring but I have no idea where he
could sleep maybe on the old sofa do you remember what we said about the lighthouse it closes at
noon on sundays and nobody told me really I think you are right let us walk there tomorrow if the
weather holds what would you bring bread cheese apples and that strange book about whales which I
never finished reading to the very end
"""
WORDS = tuple(_TEXT.split())
_METADATA = b'{"training_consent":"true"}'
_PERSONA = msgspec.json.encode({"role": "system", "content": "You are Mira, who keeps a lighthouse. " * 12})
_WRITERS = 32


def said(dice: random.Random, least: int, most: int) -> str:
    """Some words, now and then with something in it that nobody should train on."""
    text = " ".join(dice.choices(WORDS, k=dice.randint(least, most)))
    chance = dice.random()
    if chance < 0.01:
        return f"{text}, write to someone{dice.randint(1, 999)}@example.org"
    return (
        f"{text}, call 138 {dice.randint(1000, 9999)} {dice.randint(1000, 9999)}" if chance < 0.02 else text
    )


def dialogue(number: int, turns: int) -> list[Turn]:
    """The turns of dialogue `number`; one in a hundred says what another one has said."""
    dice = random.Random(number - 1 if number % 100 == 99 else number)
    made = []
    for at in range(turns + dice.randint(-2, 2)):
        user = msgspec.json.encode({"role": "user", "content": said(dice, 5, 20)})
        answer = msgspec.json.encode({"role": "assistant", "content": said(dice, 15, 45)})
        made.append(
            Turn(
                messages=(user, answer),
                digests=number.to_bytes(4) + at.to_bytes(4) + bytes(24),
                at=1.7e9 + at,
                reply=Reply(model="mira", prompt_tokens=200 + 60 * at, completion_tokens=40),
                mark=at.to_bytes(8),
            )
        )
    return made


def export_lines(conversations: int, turns: int) -> Iterator[bytes]:
    """The lines of `friendo conversations export` for all of them."""
    for number in range(conversations):
        made, dice = dialogue(number, turns), random.Random(10**9 + number)
        conversation = Conversation(
            user=f"user-{number // 3}", persona=_PERSONA, metadata=_METADATA, turn_count=len(made)
        )
        yield head_line(f"conv_{number}", conversation, branches=0)
        for at, turn in enumerate(made):
            rating = b'{"rating":"%b","comment":"","at":1}' % (b"up" if dice.random() < 0.7 else b"down")
            rated = {items_of(turn, at)[-1].id: rating} if dice.random() < 0.05 else {}
            yield turn_line(turn, at, rated)


async def fill(url: str, conversations: int, turns: int) -> None:
    """Write all of them into the store, `_WRITERS` at once."""
    store = RedisStore(url, timeout_s=60)
    numbers = iter(range(conversations))

    async def writer() -> None:
        for number in numbers:
            await _written(store, number, turns)

    async with asyncio.TaskGroup() as group:
        for _ in range(_WRITERS):
            group.create_task(writer())
    await store.close()


async def _written(store: ConversationStore, number: int, turns: int) -> None:
    key = ConversationKey(TENANT, f"conv_{number}")
    begun = await store.begin(key, Claim(owner="bench", lease_ms=60_000, queue_limit=1))
    if not isinstance(begun, Begun):
        raise TypeError(f"nobody else writes: {begun}")
    made = tuple(dialogue(number, turns))
    change = Change(
        keep=0, append=made, at=1.7e9, persona=_PERSONA, user=f"user-{number // 3}", metadata=_METADATA
    )
    await store.commit(key, begun.lease, change)


def from_file(path: Path, out: Path, form: Form) -> None:
    """Export what is in the file, and say what it cost."""
    with DatasetFolder(out, form) as folder:
        gathering = Gathering(DatasetRules(form=form), TENANT, folder)
        for talk in exported_talks(path, lambda _: None):
            gathering.take(talk)
        report(gathering, gathering.finish(now=time.time()))


def from_store(url: str, out: Path, form: Form) -> None:
    """Export what is in the store, and say what it cost."""
    uvloop.run(_from_store(url, out, form))


async def _from_store(url: str, out: Path, form: Form) -> None:
    store = RedisStore(url, timeout_s=60)
    with DatasetFolder(out, form) as folder:
        gathering = Gathering(DatasetRules(form=form), TENANT, folder)
        async for talk in stored_talks(store, TENANT, await stored_ids(store, TENANT)):
            if talk is not None:
                gathering.take(talk)
        report(gathering, gathering.finish(now=time.time()))
    await store.close()


def report(gathering: Gathering, folder: Path) -> None:
    """What this process has used, and what came of it."""
    cpu = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{gathering.conversations} conversations, {gathering.examples} examples, {size:.0f} MB written")
    rate = gathering.conversations / cpu
    print(f"{cpu:.1f} s of CPU ({rate:.0f} conversations a second of one core), peak {peak:.0f} MB")
    print(f"left out: {dict(gathering.left_out)}")


def main() -> None:
    """Make the dialogues, then export them."""
    parser = argparse.ArgumentParser(prog="python -m bench.datasets")
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--from", dest="source", choices=["file", "store"], default="file")
    parser.add_argument("--form", choices=["sharegpt", "alpaca"], default="sharegpt")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="friendo-bench-") as name:
        out = Path(name) / "datasets"
        if given.source == "file":
            path = Path(name) / "export.jsonl"
            with path.open("wb") as file:
                file.writelines(export_lines(given.conversations, given.turns))
            _apart(from_file, path, out, given.form)
            return
        with valkey() as url:
            asyncio.run(fill(url, given.conversations, given.turns))
            _apart(from_store, url, out, given.form)


def _apart(what: object, *arguments: object) -> None:
    """In a process of its own, started afresh, so that its figures are its own."""
    process = multiprocessing.get_context("spawn").Process(target=what, args=arguments)  # type: ignore[arg-type]
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
