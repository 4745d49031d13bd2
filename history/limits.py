"""How much may be stored of a conversation and of a tenant: what is counted, and when it is too much. Pure.

Counted are turns, replaced and archived ones included, and their bytes as they are encoded (before the
archive compresses them). A conversation's count is kept with it and is exact; a tenant's is added up behind,
so that a turn stays at two calls: it may be a few seconds old.
"""

import msgspec

from history.conversation import Stored
from history.errors import ConversationFull, QuotaExceeded


class LimitRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be stored. 0: no limit."""

    conversation_turns: int = 0
    """Turns of one conversation."""
    conversation_bytes: int = 0
    """A conversation that has so many bytes takes no new turn; its last one may go beyond."""
    tenant_turns: int = 0
    """Turns of all conversations of a tenant. What all gateways write within two seconds may go beyond."""
    tenant_bytes: int = 0

    @property
    def counts_tenants(self) -> bool:
        """Whether tenants' totals are needed."""
        return bool(self.tenant_turns or self.tenant_bytes)


def check_tenant(total: Stored, rule: LimitRule) -> None:
    """Raise `QuotaExceeded` if a tenant has as much as it may have."""
    for what, has, may in (
        ("turns", total.turns, rule.tenant_turns),
        ("bytes", total.bytes, rule.tenant_bytes),
    ):
        if may and has >= may:
            raise QuotaExceeded(
                f"{has} {what} are stored for this tenant, and {may} may be: delete conversations, or have "
                f"history.limits.tenant_{what} raised; reading, exporting and deleting go on"
            )


def check_growth(before: Stored, after: Stored, rule: LimitRule) -> None:
    """Raise `ConversationFull` if a conversation must not grow so. The Lua script follows the same rule."""
    if rule.conversation_turns and before.turns < after.turns > rule.conversation_turns:
        raise full(before, rule)
    if rule.conversation_bytes and after.bytes > before.bytes >= rule.conversation_bytes:
        raise full(before, rule)


def full(stored: Stored, rule: LimitRule) -> ConversationFull:
    """The error for a conversation that may not grow any more."""
    may = [f"{rule.conversation_turns} turns"] if rule.conversation_turns else []
    may += [f"{rule.conversation_bytes} bytes"] if rule.conversation_bytes else []
    return ConversationFull(
        f"this conversation has {stored.turns} turns with {stored.bytes} bytes stored, replaced ones "
        f"included, and may have {' and '.join(may)}: go on in a new conversation, or have "
        "history.limits.conversation_turns or conversation_bytes raised"
    )
