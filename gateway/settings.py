"""Everything that can be configured, as one tree of records.

Sections that rule a part of the core are that part's own records, so a setting is described beside the
code it rules. Unknown keys are refused by the loader (`config_file`). A 41st key needs an ADR.
"""

from typing import Literal

import msgspec

from gateway.nodes.connection import Patience
from gateway.routing.choice import RoutingRules
from gateway.routing.node import NodeSpec
from history.rules import DialogueRules


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens and what it accepts."""

    host: str = "127.0.0.1"
    port: int = 7860
    admin_host: str = "127.0.0.1"
    admin_port: int = 7861
    max_body_bytes: int = 16 * 1024 * 1024
    drain_s: float = 30.0
    """How long answers under way may take to finish after SIGTERM."""


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """API keys. Without them, everybody who reaches the port is tenant `default`."""

    enabled: bool = True
    pepper: str = ""
    """The secret that stored key digests depend on; at least 32 bytes, from the environment or a file."""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where dialogues are kept."""

    url: str = "redis://127.0.0.1:6379/0"
    """`memory` keeps them in this process only, for trying things."""
    pool_size: int = 64
    timeout_s: float = 2.0
    ttl_days: float = 0.0
    """Conversations without activity are deleted after so many days; 0: never."""


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is remembered, and how turns are taken."""

    adopt_cache_key: bool = False
    """Let `prompt_cache_key` and `metadata.session_id` name a conversation."""
    on_disconnect: Literal["drop", "incomplete"] = "drop"
    """What becomes of a turn whose client left before the answer was complete."""
    rules: DialogueRules = DialogueRules()


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gateway's settings."""

    server: Server = Server()
    auth: Auth = Auth()
    store: Store = Store()
    history: History = History()
    routing: RoutingRules = RoutingRules()
    relay: Patience = Patience()
    nodes: tuple[NodeSpec, ...] = ()
