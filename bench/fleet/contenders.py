"""Who takes part: a name, and the minds of its replicas."""

from collections.abc import Callable, Sequence
from functools import partial

from bench.fleet.hashing import bounded_hash, consistent_hash, prefix_hash, sticky
from bench.fleet.oracle import oracle
from bench.fleet.ours import ours
from bench.fleet.policy import Make, Policy, Sight
from bench.fleet.radix import cache_aware, fleet_switch
from bench.fleet.scorers import approximate, precise
from bench.fleet.spreading import least_load, round_robin
from gateway.routing.choice import RoutingRules

FRIENDO = "friendo"
ORACLE = "oracle"


def _each(one: Callable[[Sight, int], Policy], sight: Sight, replicas: int) -> Sequence[Policy]:
    """Replicas that share nothing."""
    return [one(sight, replica) for replica in range(replicas)]


_RIVALS: dict[str, Callable[[Sight, int], Policy]] = {
    "round robin": round_robin,
    "least load, SMG": least_load,
    "consistent hash": consistent_hash,
    "bounded hash 1.25": bounded_hash,
    "prefix hash, SMG": prefix_hash,
    "sticky, vllm-router": sticky,
    "cache_aware, SMG": cache_aware,
    "cache_aware, vllm-router": fleet_switch,
    "approximate, llm-d": approximate,
    "precise, llm-d": precise,
}
RIVALS = tuple(_RIVALS)

CONTENDERS: dict[str, Make] = {
    **{name: partial(_each, one) for name, one in _RIVALS.items()},
    FRIENDO: partial(ours, RoutingRules()),
    ORACLE: partial(_each, oracle),
}
