"""Everything that can be configured, as one tree of records.

Sections that rule a part of the core are that part's own records, so a setting is described beside the
code it rules. Unknown keys are refused by the loader (`config_file`). A 41st key needs an ADR.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from gateway.config_file.forms import (
    Form,
    between,
    data_parallel_rank,
    distinct_nodes,
    dns_name,
    header_text,
    host,
    kubernetes_service,
    node_address,
    port,
    recipe_name,
    redis_address,
    rising_shares,
    store_address,
)
from gateway.nodes.connection import Patience
from gateway.nodes.discovery import NodeSource
from gateway.nodes.roster_rules import RosterRules
from gateway.rollout.rules import RolloutRules
from gateway.routing.choice import RoutingRules
from gateway.routing.node import NodeSpec
from gateway.upkeep_rules import UpkeepRules
from history.archive import ArchiveRule
from history.limits import LimitRule
from history.recaller import RecallCacheRule
from history.redis_place import Durability, RedisPlace, parse_place
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
    isolate_cache: bool = False
    """Give every tenant a prefix cache of its own on vLLM and SGLang nodes (other engines cannot): nobody
    finds out by an answer's speed what others asked, and no persona's prefix is shared between tenants."""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where dialogues are kept."""

    url: str = "redis://127.0.0.1:6379/0"
    """A server, a cluster or sentinels: docs/redis.md. `memory` keeps them in this process only."""
    password: str = ""
    """Takes the place of the one in the URL, and may hold any character."""
    pool_size: int = 64
    timeout_s: float = 2.0
    window_bytes: int = 128 * 1024 * 1024
    """How much of the windows of conversations is kept in this process too, so that a turn reads only what is
    new there; about 50 kB for one of forty turns. 0: nothing."""
    ttl_days: float = 0.0
    """Conversations without activity are deleted after so many days; 0: never."""
    durability: Durability = Durability()

    def __post_init__(self) -> None:
        if self.durability.wait_replicas and self.durability.wait_s >= self.timeout_s:
            raise ValueError(
                f"durability.wait_s ({self.durability.wait_s:g}) must be below timeout_s ({self.timeout_s:g})"
            )

    @property
    def place(self) -> RedisPlace:
        """Where `url` and `password` lead to. Raises `ValueError` for `memory`, which is no place."""
        return parse_place(self.url, password=self.password)


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is remembered, and how turns are taken."""

    adopt_cache_key: bool = False
    """Let `prompt_cache_key` and `metadata.session_id` name a conversation."""
    on_disconnect: Literal["drop", "incomplete"] = "drop"
    """What becomes of a turn whose client left before the answer was complete."""
    on_outage: Literal["fail_closed", "stateless"] = "fail_closed"
    """While the store does not answer: refuse, or answer without any memory and say so in a header."""
    stateless: Literal["off", "window"] = "off"
    """What is done to the dialogue of a request without a conversation, unless its `x-history` says: with
    `window`, the turns that a conversation's window would not show are left out."""
    rules: DialogueRules = DialogueRules()
    limits: LimitRule = LimitRule()
    upkeep: UpkeepRules = UpkeepRules()
    recall_cache: RecallCacheRule = RecallCacheRule()


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files and training jobs over HTTP (docs/fine_tuning.md)."""

    folder: str = ""
    """A folder that gateway and workers share, for files, datasets and models. Empty: `/v1/files` and
    `/v1/fine_tuning/jobs` answer 501."""
    queue_url: str = ""
    """One Redis server for the queue of jobs; needed beside a cluster or sentinels. Empty: another database
    of the store's server."""
    recipe: str = "lora"
    """How a job is trained that names no recipe."""
    max_file_bytes: int = 512 * 1024 * 1024
    max_files: int = 1000
    """Files that a tenant may have, those being uploaded included."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gateway's settings."""

    server: Server = Server()
    auth: Auth = Auth()
    store: Store = Store()
    history: History = History()
    archive: ArchiveRule = ArchiveRule()
    training: Training = Training()
    routing: RoutingRules = RoutingRules()
    relay: Patience = Patience()
    roster: RosterRules = RosterRules()
    rollout: RolloutRules = RolloutRules()
    nodes: tuple[NodeSpec, ...] = ()
    discovery: tuple[NodeSource, ...] = ()
    """Names and services whose addresses are nodes, beside those that are listed."""


def _store_url(url: str) -> str:
    wrong = store_address(url) if url != "memory" else ""
    return f"{wrong}, or memory" if wrong else ""


def _queue_url(url: str) -> str:
    return redis_address(url) if url else ""


_DAY_S = 86_400
_SPAN = between(0.001, _DAY_S)
FORMS: Mapping[str, Form] = {
    "server.host": host,
    "server.port": port,
    "server.admin_host": host,
    "server.admin_port": port,
    "server.max_body_bytes": between(1, 2**40),
    "server.drain_s": between(0, _DAY_S),
    "store.url": _store_url,
    "store.durability.wait_replicas": between(0, 16),
    "store.durability.wait_s": _SPAN,
    "store.pool_size": between(1, 10_000),
    "store.timeout_s": _SPAN,
    "store.window_bytes": between(0, 2**40),
    "store.ttl_days": between(0, 36_500),
    "history.rules.queue_limit": between(0, 1_000_000),
    "history.rules.queue_wait_s": between(0, _DAY_S),
    "history.rules.lease_s": between(1, _DAY_S),
    "history.rules.compaction.lead_turns": between(0, 1000),
    "history.rules.compaction.lag_turns": between(0, 1000),
    "history.rules.compaction.max_tokens": between(16, 100_000),
    "history.rules.compaction.max_facts": between(0, 1000),
    "history.rules.recall.meaning.wait_s": between(0.001, 10),
    "history.rules.recall.meaning.stands_out": between(0, 10),
    "history.rules.recall.meaning.max_chars": between(1, 100_000),
    "history.rules.recall.meaning.batch": between(1, 1000),
    "archive.behind_turns": between(0, 1_000_000),
    "archive.keep_days": between(0, 36_500),
    "history.limits.conversation_turns": between(0, 10**15),
    "history.limits.conversation_bytes": between(0, 10**15),
    "history.limits.tenant_turns": between(0, 10**15),
    "history.limits.tenant_bytes": between(0, 10**15),
    "history.upkeep.sweep_hours": between(0, 24 * 365),
    "history.upkeep.rewarm": between(0, 100_000),
    "history.upkeep.rewarm_within_s": between(0, _DAY_S),
    "history.upkeep.workers": between(1, 1000),
    "history.upkeep.queue_limit": between(0, 1_000_000),
    "history.upkeep.idle_wait_s": between(0, _DAY_S),
    "routing.home_band": between(0, 1_000_000),
    "routing.load_bound": between(1, 1_000_000),
    "routing.retention_s": between(0.001, 365 * _DAY_S),
    "routing.max_waiting": between(0, 1_000_000),
    "routing.queue_limit": between(0, 1_000_000),
    "routing.queue_wait_s": between(0, _DAY_S),
    "relay.connect_s": _SPAN,
    "relay.first_byte_s": _SPAN,
    "relay.idle_s": _SPAN,
    "relay.total_s": _SPAN,
    "relay.ping_s": between(0, _DAY_S),
    "nodes": distinct_nodes,
    "nodes[].url": node_address,
    "nodes[].weight": between(0.001, 1_000_000),
    "nodes[].max_running": between(0, 1_000_000),
    "nodes[].api_key": header_text,
    "nodes[].rank": data_parallel_rank,
    "training.queue_url": _queue_url,
    "training.recipe": recipe_name,
    "training.max_file_bytes": between(1, 2**40),
    "training.max_files": between(1, 10_000),
    "roster.drain_s": between(0, _DAY_S),
    "rollout.steps": rising_shares,
    "rollout.rule.min_answers": between(1, 1_000_000_000),
    "rollout.rule.min_ratings": between(1, 1_000_000_000),
    "rollout.rule.error_excess": between(0, 1),
    "rollout.rule.ttft_ratio": between(1, 1_000),
    "rollout.rule.down_excess": between(0, 1),
    "rollout.rule.hold_s": between(0, 365 * _DAY_S),
    "rollout.smoke_tokens": between(1, 4096),
    "rollout.smoke_s": _SPAN,
    "rollout.attempts": between(1, 100),
    "rollout.judge_s": between(0.1, _DAY_S),
    "rollout.keep_versions": between(0, 100),
    "rollout.drain_s": between(0, _DAY_S),
    "discovery[].dns": dns_name,
    "discovery[].kubernetes": kubernetes_service,
    "discovery[].port": port,
    "discovery[].weight": between(0.001, 1_000_000),
    "discovery[].max_running": between(0, 1_000_000),
    "discovery[].api_key": header_text,
    "discovery[].every_s": between(1, 3600),
}
"""What a setting's type does not say of its value, by the setting's path; the loader checks it."""
