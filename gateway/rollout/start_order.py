"""A rollout as an operator orders it. Pure."""

from typing import Any, Literal

import msgspec

from gateway.errors import BadRequest
from gateway.rollout.verdict import Rule


class StartOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version, and how it is to reach users. What is left out is as the settings say."""

    alias: str
    """What clients ask for."""
    version: str
    """Its name behind the alias: nodes serve it as ALIAS--VERSION."""
    path: str = ""
    """Where the adapter lies on the nodes' own disks, and always will."""
    kind: Literal["adapter", "model"] = "adapter"
    base: str = ""
    """The model that the alias stands for until then; can be left out where it is clear."""
    base_model: str = ""
    """What adapter_config.json calls that model, where nodes call it otherwise."""
    local_path: str = ""
    """Where the gateway finds the same adapter, if not at `path`."""
    unchecked: bool = False
    """Go on without a look at adapter_config.json."""
    approved: bool = False
    """Somebody has said yes already."""
    steps: tuple[float, ...] = ()
    rule: dict[str, Any] = {}
    """Fields of the rule that are other than the settings'."""
    by: str = ""
    """Who wants it, for the history; the key that was used is noted beside it."""
    why: str = ""


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who does something and why, for the history."""

    by: str = ""
    why: str = ""


def rule_of(order: StartOrder, usual: Rule) -> Rule:
    """The rule that the order wants. Raises `BadRequest`."""
    try:
        rule = msgspec.convert({**msgspec.to_builtins(usual), **order.rule}, Rule)
    except msgspec.ValidationError as error:
        raise BadRequest(f"rule: {error}", param="rule") from error
    shares = (rule.error_excess, rule.down_excess)
    if min(rule.min_answers, rule.min_ratings) < 1 or rule.hold_s < 0 or rule.ttft_ratio < 1:
        raise BadRequest("rule: minimums are at least 1, hold_s is not negative, ttft_ratio at least 1")
    if not all(0 <= share <= 1 for share in shares):
        raise BadRequest("rule: error_excess and down_excess are shares from 0 to 1", param="rule")
    return rule
