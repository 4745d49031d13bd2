"""Where conversations for a dataset come from: the store, or a file of `friendo conversations export`."""

import asyncio
import binascii
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from history.conversation import Conversation, ConversationKey, Memory, Reply, Status, Tailed, Turn
from history.errors import ConversationNotFound
from history.items import ids_of
from history.pages import pages
from history.ports import Branch, ConversationStore
from training.datasets.talk import Talk, consents
from training.errors import BadDataset

_AT_ONCE = 32
_RATINGS_AT_ONCE = 1000
_MAX_LINE = 64 * 1024 * 1024
_VERSION = 1


async def stored_ids(store: ConversationStore, tenant: str) -> list[str]:
    """All conversations of a tenant, in an order of their own, so that the same store gives the same
    dataset.
    """
    ids = set[str]()
    async for some in store.census():
        ids.update(one.key.id for one in some if one.key.tenant == tenant)
    return sorted(ids)


async def stored_talks(store: ConversationStore, tenant: str, ids: list[str]) -> AsyncIterator[Talk | None]:
    """Each of the conversations, `_AT_ONCE` read together; None for one that is gone or has no consent."""
    for at in range(0, len(ids), _AT_ONCE):
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_stored(store, ConversationKey(tenant, one)))
                for one in ids[at : at + _AT_ONCE]
            ]
        for task in tasks:
            yield task.result()


async def _stored(store: ConversationStore, key: ConversationKey) -> Talk | None:
    """One conversation. Without consent its words are not even read."""
    conversation = await store.load(key)
    if conversation is None:
        return None
    if not consents(conversation.metadata):
        return Talk(key.id, conversation, ())
    try:
        turns: list[Turn] = []
        async for _, page in pages(store, key, 0, conversation.turn_count):
            turns += page
        branches = [await store.branch(key, number) for number in range(1, conversation.branches + 1)]
    except ConversationNotFound:
        return None
    ratings = await _ratings(store, key, [(0, tuple(turns)), *branches])
    return Talk(key.id, conversation, tuple(turns), tuple(branches), ratings)


async def _ratings(store: ConversationStore, key: ConversationKey, rows: list[Branch]) -> Mapping[str, bytes]:
    items = [one for first, turns in rows for at, turn in enumerate(turns, first) for one in ids_of(turn, at)]
    known: dict[str, bytes] = {}
    for at in range(0, len(items), _RATINGS_AT_ONCE):
        some = items[at : at + _RATINGS_AT_ONCE]
        known |= {
            item: rating for item, rating in zip(some, await store.ratings(key, some), strict=True) if rating
        }
    return known


class _Reply(msgspec.Struct):
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Memory(msgspec.Struct):
    covers_to: int
    version: int
    summary: str
    facts: tuple[str, ...] = ()
    at: float = 0.0


class _Line(msgspec.Struct):
    """A line of an export: a conversation's head, or one of its turns. What no dataset asks for is left
    out.
    """

    object: Literal["friendo.conversation", "friendo.turn"]
    id: str = ""
    version: int = 0
    user: str = ""
    persona: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw = msgspec.Raw(b"")
    epoch: int = 0
    cut: int = 0
    shows: int = 0
    memories: tuple[_Memory, ...] = ()
    turns: int = 0
    turn: int = 0
    branch: int = 0
    messages: tuple[msgspec.Raw, ...] = ()
    digests: str = ""
    status: Status = "complete"
    at: float = 0.0
    tokens: int = 0
    mark: str = ""
    reply: _Reply | None = None
    ratings: dict[str, msgspec.Raw] = {}
    tailed: Tailed | None = None


_decode = msgspec.json.Decoder(_Line).decode


def exported_talks(path: Path, on_bytes: Callable[[int], None]) -> Iterator[Talk]:
    """The conversations of an export, one after another. Raises `BadDataset`, which names the line."""
    head: _Line | None = None
    turns: list[Turn] = []
    branches: dict[int, tuple[int, list[Turn]]] = {}
    ratings: dict[str, bytes] = {}
    for number, one in _lines(path, on_bytes):
        if one.object == "friendo.conversation":
            if head is not None:
                yield _talk(head, turns, branches, ratings)
            if one.version > _VERSION:
                raise BadDataset(
                    (f"{path.name}, line {number}: version {one.version} is newer than this program",)
                )
            head, turns, branches, ratings = one, [], {}, {}
            continue
        if head is None or one.turn != _next(one, turns, branches):
            raise BadDataset((f"{path.name}, line {number}: a turn is out of its place; export it again",))
        row = branches.setdefault(one.branch, (one.turn, []))[1] if one.branch else turns
        row.append(_turn(one, path, number))
        if one.ratings:
            ratings.update((item, bytes(rating)) for item, rating in one.ratings.items())
    if head is not None:
        yield _talk(head, turns, branches, ratings)


def _next(one: _Line, turns: list[Turn], branches: Mapping[int, tuple[int, list[Turn]]]) -> int:
    if not one.branch:
        return len(turns)
    first, row = branches.get(one.branch, (one.turn, []))
    return first + len(row)


def _lines(path: Path, on_bytes: Callable[[int], None]) -> Iterator[tuple[int, _Line]]:
    with path.open("rb", buffering=1024 * 1024) as file:
        number = 0
        while raw := file.readline(_MAX_LINE):
            number += 1
            on_bytes(len(raw))
            if not raw.strip():
                continue
            try:
                yield number, _decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BadDataset((f"{path.name}, line {number}: no line of an export: {error}",)) from error


def _turn(one: _Line, path: Path, number: int) -> Turn:
    reply = one.reply
    try:
        mark = bytes.fromhex(one.mark)
        digests = _digests(one)
    except ValueError as error:
        raise BadDataset((f"{path.name}, line {number}: {error}",)) from error
    return Turn(
        messages=tuple(map(bytes, one.messages)),
        digests=digests,
        tokens=one.tokens,
        at=one.at,
        status=one.status,
        reply=Reply(model=reply.model, prompt_tokens=reply.prompt_tokens) if reply is not None else Reply(),
        mark=mark,
        tailed=one.tailed,
    )


def _digests(one: _Line) -> bytes:
    return binascii.a2b_base64(one.digests, strict_mode=True) if one.digests else b""


def _talk(
    head: _Line,
    turns: list[Turn],
    branches: Mapping[int, tuple[int, list[Turn]]],
    ratings: Mapping[str, bytes],
) -> Talk:
    persona = bytes(head.persona)
    conversation = Conversation(
        user=head.user,
        persona=b"" if persona == b"null" else persona,
        epoch=head.epoch,
        turn_count=len(turns),
        cut=head.cut,
        memories=tuple(
            Memory(one.covers_to, one.version, one.summary, one.facts, one.at) for one in head.memories
        ),
        shows=head.shows,
        metadata=bytes(head.metadata),
    )
    kept = tuple((first, tuple(row)) for _, (first, row) in sorted(branches.items()))
    return Talk(head.id, conversation, tuple(turns), kept, ratings)
