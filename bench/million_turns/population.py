"""Who talks, and for how long: a population of conversations, most of them short and a few very long.

Everything follows from the seed, so that several processes can each write a part of one population.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import xxhash

from history.conversation import ConversationKey
from history.store_rules import MEMORIES_KEPT
from history.window import WindowRule, stateless_cut, step

TENANT = "bench"
MEDIAN_TURNS = 8
"""Half of the conversations have at most about so many turns."""


@dataclass(frozen=True, slots=True)
class Outline:
    """One conversation before anything is said in it."""

    key: ConversationKey
    user: str
    length: int
    """In turns."""
    seed: str
    versions: int = MEMORIES_KEPT
    """How many versions of the memory it has at most, one for each of its newest cuts."""


def lengths(turns: int, conversations: int, seed: int) -> tuple[int, ...]:
    """How many turns each conversation has: log-normal about the median, `turns` in all.

    Raises `ValueError` for fewer turns than conversations.
    """
    if not 0 < conversations <= turns:
        raise ValueError("there must be at least one conversation, and one turn in each")
    sigma = math.sqrt(2 * math.log(max(2.0, turns / conversations / MEDIAN_TURNS)))
    dice = random.Random(f"{seed}/lengths")
    weights = [dice.lognormvariate(0, sigma) for _ in range(conversations)]
    # Sums are rounded, not lengths, so that what is lost in one conversation comes back in the next.
    sums = list(accumulate(weights, initial=0.0))
    ends = [round((turns - conversations) * end / sums[-1]) for end in sums]
    return tuple(1 + end - start for start, end in pairwise(ends))


def outline(number: int, length: int, seed: int) -> Outline:
    """Conversation `number`. Three conversations belong to two users."""
    name = xxhash.xxh3_128_hexdigest(f"{seed}/{number}".encode())
    return Outline(
        key=ConversationKey(TENANT, f"conv_{name}"),
        user=f"user-{number * 2 // 3:08}",
        length=length,
        seed=f"{seed}/{number}",
    )


def batches(of: Sequence[int], size: int) -> list[range]:
    """Stretches of conversations, of about `size` turns each."""
    stretches, first, turns = [], 0, 0
    for number, length in enumerate(of):
        turns += length
        if turns >= size or number == len(of) - 1:
            stretches.append(range(first, number + 1))
            first, turns = number + 1, 0
    return stretches


def cut_covers(length: int, rule: WindowRule, versions: int) -> tuple[int, ...]:
    """How many turns each kept version of the memory covers, oldest first: one version per cut."""
    cut, dropped = stateless_cut(length, rule), step(rule)
    return tuple(range(max(dropped, cut - (versions - 1) * dropped), cut + 1, dropped)) if versions else ()


def shortest_alike(length: int, rule: WindowRule, versions: int) -> int:
    """The fewest turns with which a conversation has the same window and as many versions of its memory."""
    enough = rule.max_turns + versions * step(rule)
    return length if length <= enough else enough + (length - enough) % step(rule)


def picked(of: Sequence[int], count: int, seed: int) -> list[int]:
    """Up to `count` conversations, each as likely as it is long: where the next message would come."""
    dice = random.Random(f"{seed}/picked")
    drawn = dice.choices(range(len(of)), weights=of, k=count)
    return list(dict.fromkeys(drawn))
