"""A process killed at every step of a compaction, over a real Valkey, with turns written meanwhile."""

import asyncio
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import msgspec
import pytest

from history.conversation import Conversation, ConversationKey, Reply
from history.dialogue import Dialogues
from history.incoming import read_incoming
from history.lease_keeper import LeaseKeeper
from history.message import answer
from history.open_turn import Answer, Ask, OpenTurn
from history.redis_store import RedisStore
from tests.integration.dying_compactor import RULES, STEPS

PROGRAM = Path(__file__).with_name("dying_compactor.py")


class Talk:
    """A conversation in the server; says `question N` and is told `answer N`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = ConversationKey(f"t{uuid.uuid4().hex}", "c")
        self.store = RedisStore(url)
        self.said = 0

    async def say(self, count: int = 1) -> bytes:
        """So many turns; the last prompt's first message."""
        dialogues = Dialogues(self.store, LeaseKeeper(self.store, clock=lambda: 0.0), RULES, lambda: 0.0)
        for _ in range(count):
            self.said += 1
            messages = msgspec.json.encode([{"role": "user", "content": f"question {self.said}"}])
            ask = Ask(owner=f"o{self.said}", on_stop=lambda _: None, on_busy="queue")
            turn = await dialogues.open(self.key, read_incoming(messages), ask)
            assert isinstance(turn, OpenTurn)
            said = answer({"content": f"answer {self.said}"})
            await turn.commit(Answer(message=said, reply=Reply()))
        return turn.prompt.messages[0]

    async def compact(self, step: str) -> tuple[int, str]:
        """A compaction in a process of its own; its exit code and what it says."""
        command = (sys.executable, PROGRAM, self.url, self.key.tenant, self.key.id, step)
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout.strip()

    async def stored(self) -> Conversation:
        conversation = await self.store.load(self.key)
        assert conversation is not None
        return conversation

    async def questions(self) -> list[str]:
        turns = await self.store.read(self.key, 0, self.said)
        return [msgspec.json.decode(turn.messages[0])["content"] for turn in turns]


@pytest.mark.parametrize("step", STEPS)
async def test_a_compaction_killed_at_any_step_is_whole_or_was_never(valkey_url: str, step: str) -> None:
    """No turn is lost, no half of a version is seen, and the next compaction finishes the work once."""
    talk = Talk(valkey_url)
    await talk.say(4)

    code, _ = await talk.compact(step)
    await talk.say()
    after_death = (await talk.stored()).memories
    again = await talk.compact("never")
    head = await talk.say(2)

    assert code == -signal.SIGKILL
    assert [one.version for one in after_death] == ([1] if step == "after remember" else [])
    assert again == (0, "stale" if step == "after remember" else "kept")
    conversation = await talk.stored()
    assert [(one.version, one.covers_to) for one in conversation.memories] == [(1, 3)]
    assert [f"question {n}" for n in range(1, 8)] == await talk.questions()
    assert (conversation.cut, conversation.shows) == (3, 3)
    assert b"Said in" in head
    await talk.store.close()


async def test_two_replicas_that_compact_at_once_make_one_version(valkey_url: str) -> None:
    """The second finds that it came too late and changes nothing."""
    talk = Talk(valkey_url)
    await talk.say(4)

    done = await asyncio.gather(*(talk.compact("never") for _ in range(4)), talk.say(2))

    outcomes = sorted(outcome for _, outcome in done[:4])
    conversation = await talk.stored()
    assert outcomes == ["kept", "stale", "stale", "stale"]
    assert [one.version for one in conversation.memories] == [1]
    assert [f"question {n}" for n in range(1, 7)] == await talk.questions()
    await talk.store.close()
