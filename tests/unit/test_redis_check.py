"""Which settings of a store are warned of, in which words, for which servers."""

from dataclasses import replace

import pytest

from history.redis_check import ServerFacts, store_warnings
from history.redis_place import Durability

GOOD = ServerFacts(
    name="a:1",
    version="9.1.2",
    is_cluster=False,
    is_master=True,
    replicas=0,
    appendonly=True,
    policy="noeviction",
    appendfsync="always",
)


def test_good_server_is_not_warned_of() -> None:
    """Nothing is said where nothing is missing; nor is it with a replica that is waited for."""
    with_replica = replace(GOOD, replicas=1)

    assert () == store_warnings([GOOD], "server", Durability())
    assert () == store_warnings([with_replica], "sentinel", Durability(wait_replicas=1))


@pytest.mark.parametrize(
    ("gap", "mended_by"),
    [
        ({"appendonly": False, "appendfsync": "everysec"}, "set appendonly yes"),
        ({"appendfsync": "everysec"}, "set appendfsync always"),
        ({"appendfsync": "no"}, "set appendfsync always"),
        ({"policy": "allkeys-lru"}, "set maxmemory-policy noeviction"),
        ({"version": "6.2.14"}, "older than 7.0, upgrade it"),
        ({"is_master": False}, "name its master in store.url"),
        ({"is_cluster": True}, "write store.url as redis.cluster://"),
        ({"replicas": 2}, "set store.durability.wait_replicas: 1"),
        ({"version": None}, "does not say its version"),
        ({"appendfsync": None}, "does not say its appendfsync"),
        ({"policy": None, "appendonly": None}, "does not say its appendonly, maxmemory-policy"),
    ],
)
def test_each_gap_is_one_line_that_says_what_mends_it(gap: dict[str, object], mended_by: str) -> None:
    """One line for one gap."""
    warnings = store_warnings([replace(GOOD, **gap)], "server", Durability())  # type: ignore[arg-type]  # per test

    assert 1 == len(warnings)
    assert mended_by.replace("redis.cluster", "redis+cluster") in warnings[0]


def test_missing_replicas_are_told_before_every_turn_is_refused() -> None:
    """More are waited for than there are."""
    (warning,) = store_warnings([GOOD], "server", Durability(wait_replicas=1))

    assert "it has 0 replicas and store.durability.wait_replicas is 1" in warning


def test_servers_with_the_same_gap_share_its_line() -> None:
    """All of them need no names; some of them are named."""
    other, third = replace(GOOD, name="b:2", policy="allkeys-lfu"), replace(GOOD, name="c:3")
    lossy = [replace(server, appendfsync="no") for server in (GOOD, other, third)]
    warnings = store_warnings(lossy, "cluster", Durability())

    assert [True, False] == [warning.startswith("the store: ") for warning in warnings]
    assert warnings[1].startswith("the store at b:2: it may evict conversations")
