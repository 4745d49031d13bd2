"""The dialogue: what is remembered and what is sent. See README.md beside this file.

The stores, `memory_store` and `redis_store`, are imported by name where a process is put together.
"""

from history.conversation import Binding, Conversation, ConversationKey, Lease, Reply, Turn
from history.dialogue import Dialogues, Outlook, Replay
from history.incoming import Incoming, read_incoming
from history.lease_keeper import LeaseKeeper
from history.message import answer
from history.open_turn import Answer, Ask, Ended, OpenTurn
from history.ports import ConversationStore
from history.rules import DialogueRules
from history.window import WindowRule

__all__ = [
    "Answer",
    "Ask",
    "Binding",
    "Conversation",
    "ConversationKey",
    "ConversationStore",
    "DialogueRules",
    "Dialogues",
    "Ended",
    "Incoming",
    "Lease",
    "LeaseKeeper",
    "OpenTurn",
    "Outlook",
    "Replay",
    "Reply",
    "Turn",
    "WindowRule",
    "answer",
    "read_incoming",
]
