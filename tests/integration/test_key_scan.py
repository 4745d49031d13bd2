"""The look at every key behind an erasure, on one server and on a cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from history.conversation import ConversationKey
from history.key_scan import scan, tag_of_conversation
from history.ports import Begun, Change, Claim
from history.redis_place import parse_place
from history.redis_store import RedisStore
from tests.conftest import Valkey
from tests.redis_topologies import running_cluster

COUNT = 60


@pytest.fixture(params=["server", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store of this test alone."""
    if request.param == "server":
        valkey: Valkey = request.getfixturevalue("valkey")
        yield valkey.url
        return
    with running_cluster(tmp_path / "cluster") as cluster:
        yield cluster.url


async def test_every_key_is_looked_at(url: str) -> None:
    """On every server there is; what is left is counted, and what is gone is not."""
    place, store = parse_place(url), RedisStore(url)
    keys = [ConversationKey("t", f"{{{number}}}") for number in range(COUNT)]
    for key in keys:
        begun = await store.begin(key, Claim(owner="w", lease_ms=5_000, queue_limit=1))
        assert isinstance(begun, Begun)
        await store.commit(key, begun.lease, Change(keep=0, append=(), at=1.0))
    tags = {tag_of_conversation(key) for key in keys[:5]}
    before = await scan(place, tags, timeout_s=5)
    for key in keys[:4]:
        await store.erase(key)
    after = await scan(place, tags, timeout_s=5)
    await store.close()

    assert (COUNT, 5) == (before.looked_at, before.left)
    assert (COUNT - 4, 1) == (after.looked_at, after.left)
