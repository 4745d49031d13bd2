"""Leases while answers are being written."""

import asyncio

import pytest

from history.conversation import ConversationKey, Lease
from history.errors import StoreFault, StoreUnavailable
from history.lease_keeper import LeaseKeeper, Stop
from history.memory_store import MemoryStore
from history.ports import Begun, Claim, Renewal

KEY = ConversationKey(tenant="t", id="c")


class FaultyStore(MemoryStore):
    """Its first renewals fail."""

    def __init__(self, faults: list[Exception]) -> None:
        super().__init__()
        self.faults = faults
        self.renewed = asyncio.Event()

    async def renew(self, key: ConversationKey, lease: Lease) -> Renewal:
        if self.faults:
            raise self.faults.pop()
        self.renewed.set()
        return await super().renew(key, lease)


async def lease_of(store: MemoryStore, owner: str = "a") -> Lease:
    begun = await store.begin(KEY, Claim(owner=owner, lease_ms=30, queue_limit=1))
    assert isinstance(begun, Begun)
    return begun.lease


@pytest.mark.parametrize("fault", [StoreFault("a newer schema"), StoreUnavailable("no answer")])
async def test_a_store_fault_costs_no_lease_and_ends_no_process(fault: Exception) -> None:
    """The next renewal is tried as if nothing had been: the commit will tell."""
    store, stops = FaultyStore([fault]), list[Stop]()
    keeper = LeaseKeeper(store, clock=asyncio.get_running_loop().time)
    keeper.hold(KEY, await lease_of(store), stops.append)

    run = asyncio.create_task(keeper.run(tick_s=0.001))
    await asyncio.wait_for(store.renewed.wait(), timeout=5)

    assert not run.done()
    assert stops == []
    run.cancel()


async def test_a_lost_lease_stops_its_holder_once() -> None:
    """Whoever took over is the writer; renewals end."""
    store, stops = MemoryStore(), list[Stop]()
    keeper = LeaseKeeper(store, clock=asyncio.get_running_loop().time)
    lease = await lease_of(store)
    await store.release(KEY, lease)
    await lease_of(store, owner="b")
    keeper.hold(KEY, lease, stops.append)

    run = asyncio.create_task(keeper.run(tick_s=0.001))
    await asyncio.sleep(0.05)

    assert stops == ["lost"]
    assert keeper.renewals == 1
    run.cancel()
