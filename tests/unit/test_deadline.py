"""Time limits without a timer for each."""

import asyncio

import pytest

from history.deadline import Deadlines


async def test_a_block_that_takes_too_long_is_ended() -> None:
    """It raises `TimeoutError`, and its task goes on."""
    deadlines = Deadlines()
    with pytest.raises(TimeoutError), deadlines.within(0.01):
        await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_block_that_is_quick_costs_nothing_later() -> None:
    """Nobody is cancelled for a block that was left, and no timer stays behind."""
    deadlines = Deadlines()
    with deadlines.within(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.15)
    assert deadlines._timer is None


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    """Also where the limit would have come."""
    deadlines = Deadlines()

    async def work() -> None:
        with deadlines.within(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_that_comes_with_the_limit_is_not_lost() -> None:
    """Both struck: the task ends as cancelled."""
    deadlines = Deadlines()

    async def work() -> None:
        with deadlines.within(60) as deadline:
            deadline.strike()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_limits_of_many_tasks_are_told_apart() -> None:
    """Only those whose time is over are ended; the rest go on."""
    deadlines = Deadlines()

    async def work(seconds: float) -> str:
        try:
            with deadlines.within(seconds):
                await asyncio.sleep(0.3)
        except TimeoutError:
            return "late"
        return "done"

    ends = await asyncio.gather(work(0.01), work(5.0), work(0.02))

    assert list(ends) == ["late", "done", "late"]
