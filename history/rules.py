"""How dialogues are held: what can be configured of this package."""

from typing import Literal

import msgspec

from history.compaction import CompactionRule
from history.recall import RecallRule
from history.tail import TailRule
from history.window import WindowSetting

OnBusy = Literal["queue", "restart", "reject"]


class DialogueRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How turns are taken. Times are in seconds."""

    window: WindowSetting = WindowSetting()
    compaction: CompactionRule = CompactionRule()
    recall: RecallRule = RecallRule()
    tail: TailRule = TailRule()
    on_busy: OnBusy = "queue"
    queue_limit: int = 16
    """Messages that may wait for one conversation; the next one is refused."""
    queue_wait_s: float = 120.0
    lease_s: float = 5.0
    """A gateway that died frees its conversations after this."""
