"""What real servers say of themselves when the gateway starts, and what it logs of that."""

import json
import re
from pathlib import Path

from history.redis_check import check_store
from history.redis_place import Durability, parse_place
from tests.conftest import Valkey
from tests.gateway_process import Stub, running_gateway
from tests.ports import free_port
from tests.redis_topologies import asking, new_server, running_cluster, wait_for_replica


async def check(url: str, *, wait_replicas: int = 0) -> tuple[str, ...]:
    return await check_store(parse_place(url), Durability(wait_replicas=wait_replicas), timeout_s=5)


async def test_embedded_server_is_not_warned_of(valkey: Valkey) -> None:
    """Set as `friendo up` sets its own."""
    assert () == await check(valkey.url)


async def test_default_server_is_warned_of_for_each_gap(valkey: Valkey) -> None:
    """Its settings as they are at that moment."""
    with asking(valkey) as client:
        client.config_set("appendfsync", "everysec")
        client.config_set("maxmemory-policy", "allkeys-lru")
    before = await check(valkey.url)
    with asking(valkey) as client:
        client.config_set("appendonly", "no")
    after = await check(valkey.url, wait_replicas=1)

    assert ["appendfsync always", "noeviction"] == [mend(line) for line in before]
    assert ["appendonly yes", "noeviction", "lower it"] == [mend(line) for line in after]


def mend(warning: str) -> str:
    """The part of a warning that says what to do."""
    mends = "appendfsync always|appendonly yes|noeviction|lower it|wait_replicas: 1|its master"
    found = re.search(f"({mends})", warning)
    return found.group(1) if found else warning


async def test_replica_and_its_master_are_told_apart(valkey: Valkey, tmp_path: Path) -> None:
    """A master with a replica that nobody waits for, and a replica named as the store."""
    with asking(valkey) as client:
        client.config_set("repl-diskless-sync-delay", 0)
    replica = new_server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {valkey.port}", appendonly=True)
    wait_for_replica(valkey)
    of_master, waiting, of_replica = (
        await check(valkey.url),
        await check(valkey.url, wait_replicas=1),
        await check(replica.url),
    )
    replica.stop()

    assert ["wait_replicas: 1"] == [mend(line) for line in of_master]
    assert () == waiting
    assert ["its master"] == [mend(line) for line in of_replica]


async def test_every_master_of_a_cluster_is_asked(tmp_path: Path) -> None:
    """One of three is set wrongly; and a cluster named as one server is noticed."""
    with running_cluster(tmp_path) as cluster:
        wrong = cluster.servers[1]
        with asking(wrong) as client:
            client.config_set("maxmemory-policy", "volatile-ttl")
        by_cluster, by_server = await check(cluster.url), await check(cluster.servers[0].url)

    policy = [line for line in by_cluster if "volatile-ttl" in line]
    assert [f"the store at 127.0.0.1:{wrong.port}: "] == [line.partition("it may")[0] for line in policy]
    assert any("redis+cluster://" in line for line in by_server)


async def test_store_that_is_away_or_something_else_is_one_line(valkey: Valkey) -> None:
    """Whatever is wrong with it; the gateway starts all the same."""
    places = (
        f"redis://127.0.0.1:{free_port()}",
        f"redis://nobody:wrong@127.0.0.1:{valkey.port}",
        f"redis+cluster://127.0.0.1:{valkey.port}",
        f"redis+sentinel://127.0.0.1:{valkey.port}?master=m",
    )
    lines = [await check(place) for place in places]

    assert [1, 1, 1, 1] == [len(line) for line in lines]
    assert all(line.startswith("the store's settings could not be checked") for (line,) in lines)
    assert "wrong" not in lines[1][0]


def test_gateway_logs_each_warning_at_its_start(valkey: Valkey, stub: Stub) -> None:
    """As a line of its log."""
    with asking(valkey) as client:
        client.config_set("appendfsync", "no")
    with running_gateway(f"vllm={stub.url}", options=("--redis", valkey.url)) as gateway:
        log = gateway.stderr()
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]

    assert ["warning"] == [event["level"] for event in events if "appendfsync always" in event["event"]]
