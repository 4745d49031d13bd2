"""How versions are rolled out unless a rollout says otherwise. Apart from `record`: settings import this."""

import msgspec

from gateway.rollout.verdict import Rule


class RolloutRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How new versions of a model reach users."""

    steps: tuple[float, ...] = (0.05, 0.25, 1.0)
    """Shares of the conversations that begin; behind the last one a version is everybody's."""
    rule: Rule = Rule()
    smoke_prompt: str = "Say hello in one short sentence."
    """What a version has to answer, with any text, on its first node before anybody gets it."""
    smoke_tokens: int = 32
    """How long that answer may be."""
    smoke_s: float = 60.0
    """How long it may take."""
    attempts: int = 5
    """How often a node is asked to load an adapter, at growing intervals, until it is left alone."""
    judge_s: float = 5.0
    """How often counts are looked at."""
    keep_versions: int = 1
    """How many earlier versions stay loaded, for instant return."""
    drain_s: float = 600.0
    """How long requests may still run with a version that left before it is unloaded."""
