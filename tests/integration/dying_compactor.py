"""A compaction that dies, run as a program: `dying_compactor.py URL TENANT ID STEP`.

It kills itself with SIGKILL at STEP, one of the moments between its calls: a fault point each. `never`
lets it end and print what became of it.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from history.compaction import CompactionRule, Instructions, Stretch
from history.compactor import Compactor
from history.conversation import Conversation, ConversationKey
from history.prompt import Prompt
from history.redis_store import RedisStore
from history.rules import DialogueRules
from history.window import WindowSetting

STEPS = (
    *("before load", "after load", "before read", "after read", "while asked", "when answered"),
    *("before remember", "after remember"),
)
RULES = DialogueRules(
    window=WindowSetting(min_turns=2, max_turns=4), compaction=CompactionRule(enabled=True, lead_turns=1)
)


class DyingStore:
    """A store that kills the process around one of its calls."""

    def __init__(self, store: RedisStore, step: str) -> None:
        self._store = store
        self._step = step

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            self.die_at(f"before {name}")
            answer = await getattr(self._store, name)(*arguments)
            self.die_at(f"after {name}")
            return answer

        return call

    def die_at(self, step: str) -> None:
        if step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, key: ConversationKey, step: str) -> None:
    store = RedisStore(url)
    dying = DyingStore(store, step)

    async def scribe(_: Conversation, prompt: Prompt) -> str:
        dying.die_at("while asked")
        await asyncio.sleep(0)
        dying.die_at("when answered")
        return f"SUMMARY:\nSaid in {len(prompt.messages)} messages.\nFACTS:\n- one"

    texts = Instructions(english="{last}", chinese="{last}")
    compactor = Compactor(dying, RULES, texts, lambda: 1.0)  # type: ignore[arg-type]  # it passes everything on
    print(await compactor.compact(key, Stretch(start=0, covers_to=3), scribe), flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], ConversationKey(sys.argv[2], sys.argv[3]), sys.argv[4]))
