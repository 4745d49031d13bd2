"""Arriving at a conversation: one at a time, first come first served."""

import asyncio

from history.conversation import ConversationKey
from history.waiting_line import WaitingLine

KEY = ConversationKey("t", "c")


async def test_those_who_arrive_together_go_one_by_one() -> None:
    """In their order, also when one of them gives up before its turn, or just when it comes."""
    line, seen, inside = WaitingLine(), [], asyncio.Event()

    async def arrive(number: int) -> None:
        async with line.arriving(KEY):
            seen.append(number)
            if number == 0:
                await inside.wait()

    tasks = [asyncio.create_task(arrive(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.sleep(0)
    inside.set()
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert [number for number in seen if number > 2] == [3, 4, 5]
    assert seen[0] == 0
    assert line._arrivals == {}


async def test_other_conversations_do_not_wait() -> None:
    """Each has a line of its own."""
    line = WaitingLine()
    async with line.arriving(KEY), asyncio.timeout(1), line.arriving(ConversationKey("t", "d")):
        assert len(line._arrivals) == 2
    assert line._arrivals == {}
