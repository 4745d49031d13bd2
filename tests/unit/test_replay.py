"""The replay against a cache that hashes every block, against worked sums, and at its edges."""

from array import array
from collections import OrderedDict
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.replay import Circumstances, Outcome, existing, in_order, replay
from history.sketch import Sized, Sketch, sketch
from history.traffic import measured
from history.window import WindowRule, advance, stateless_cut

RULES = (
    WindowRule(policy="all"),
    WindowRule(policy="last_n", min_turns=3, max_turns=3),
    WindowRule(min_turns=2, max_turns=5),
    WindowRule(min_turns=4, max_turns=4),
    WindowRule(min_turns=3, max_turns=9, max_tokens=150),
)


def even(
    turns: int, *, gap: float = 60.0, start: float = 1e6, persona: str = "p", sizes: int = 160
) -> Sketch:
    """A dialogue of equal turns at equal distances."""
    rows = [Sized(sizes // 4, sizes - sizes // 4, start + at * gap) for at in range(turns)]
    return sketch(rows, persona=800, persona_text=persona.encode())


def played(sketches: list[Sketch], rule: WindowRule, given: Circumstances) -> Outcome:
    return replay(sketches, in_order(sketches), rule, given)


class HashedBlocks:
    """A cache in which every block stands for itself and is named by its parent: slow and plain."""

    def __init__(self, capacity: int, retention_s: float) -> None:
        self._used: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self._capacity, self._retention_s = capacity, retention_s

    def match(self, chain: list[tuple[object, ...]], now: float) -> int:
        hit = 0
        for block in chain:
            if block not in self._used or now - self._used[block] > self._retention_s:
                break
            hit += 1
        return hit

    def keep(self, chain: list[tuple[object, ...]], now: float) -> None:
        for block in reversed(chain):
            self._used.pop(block, None)
            self._used[block] = now
        while self._capacity and len(self._used) > self._capacity:
            self._used.popitem(last=False)


def plainly(sketches: list[Sketch], rule: WindowRule, given: Circumstances) -> tuple[int, int]:
    """Prompt and cached tokens, with every token written out and every block named by all before it."""
    cache = HashedBlocks(given.cache_tokens // given.block, given.retention_s)
    said: list[list[list[object]]] = [[] for _ in sketches]
    cuts = [0] * len(sketches)
    prompts = cached = 0
    for index in in_order(sketches):
        one, at = sketches[index], len(said[index])
        cut = stateless_cut(at, rule) if not rule.max_tokens else _ceiling_cut(cuts[index], said[index], rule)
        cuts[index] = cut
        has_summary = rule.policy == "stepped" and cut and given.summary_tokens
        text: list[object] = [("p", one.persona_key or index, i) for i in range(one.persona)]
        text += [("m", index, cut, i) for i in range(given.summary_tokens)] if has_summary else []
        text += [token for turn in said[index][cut:] for token in turn]
        asked = [("u", index, at, i) for i in range(one.asked[at])]
        answer = [("a", index, at, i) for i in range(one.answered[at])]
        prompt = text + asked
        prompts += len(prompt)
        now = one.at[at]
        hit = min(cache.match(_chain(prompt, given.block), now), (len(prompt) - 1) // given.block)
        cached += max(0, hit) * given.block
        cache.keep(_chain((prompt + answer)[:-1], given.block), now)
        said[index].append([*asked, *answer])
    return prompts, cached


def _ceiling_cut(cut: int, said: list[list[object]], rule: WindowRule) -> int:
    return advance(cut, [len(turn) for turn in said[cut:]], rule)


def _chain(tokens: list[object], block: int) -> list[tuple[object, ...]]:
    names: list[tuple[object, ...]] = []
    parent: object = None
    for at in range(0, len(tokens) - block + 1, block):
        parent = hash((parent, tuple(tokens[at : at + block])))
        names.append((parent,))
    return names


turns = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 900)), min_size=1, max_size=14
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(turns, st.integers(0, 60), st.integers(0, 2), st.integers(0, 500)), min_size=1, max_size=4
    ),
    st.sampled_from(RULES),
    st.integers(1, 20),
    st.sampled_from([inf, 300.0]),
    st.sampled_from([0, 200, 600]),
    st.sampled_from([0, 30]),
)
def test_extents_find_what_hashed_blocks_find(
    talks: list[tuple[list[tuple[int, int, int]], int, int, int]],
    rule: WindowRule,
    block: int,
    retention_s: float,
    cache_tokens: int,
    summary: int,
) -> None:
    """Token by token, whatever the lengths, the pauses, the cache and the window."""
    sketches, taken = [], set[float]()
    for said, persona, whose, start in talks:
        now, rows = 1e6 + start, []
        for asked, answered, gap in said:
            now += gap
            while now in taken:  # no two at once: which comes first would be anybody's choice
                now += 0.001
            taken.add(now)
            rows.append(Sized(asked, answered, now))
        size = persona + whose  # the same persona has the same length
        sketches.append(sketch(rows, persona=size, persona_text=f"{size}".encode() if size else b""))
    given_ = Circumstances(
        block=block, retention_s=retention_s, cache_tokens=cache_tokens, summary_tokens=summary
    )
    found = played(sketches, rule, given_)
    assert (found.prompt_tokens, found.cached_tokens) == plainly(sketches, rule, given_)


def test_the_published_account_of_a_stepped_window() -> None:
    """Blocks of 16, a turn of 160 tokens, 40 to 20: the figures of the design's worked example."""
    one = [even(2000, gap=1.0)]
    plain = Circumstances(summary_tokens=0)
    stepped = played(one, WindowRule(min_turns=20, max_turns=40), plain)
    sliding = played(one, WindowRule(policy="last_n", min_turns=20, max_turns=20), plain)
    everything = played(one, WindowRule(policy="all"), plain)

    assert stepped.hit == pytest.approx(0.966, abs=0.005)
    assert stepped.uncached == pytest.approx(193, rel=0.08)  # the ends of blocks fall where they fall
    assert stepped.mean_window == pytest.approx(30, abs=0.3)
    assert sliding.hit == pytest.approx(0.198, abs=0.006)
    assert everything.hit > stepped.hit
    assert everything.cost > stepped.cost


def test_a_pause_longer_than_the_retention_is_paid_in_full() -> None:
    """Every turn cold: nothing but the persona could be cached, and that is as old."""
    cold = played([even(30, gap=900.0)], WindowRule(), Circumstances(retention_s=600.0))
    warm = played([even(30, gap=500.0)], WindowRule(), Circumstances(retention_s=600.0))

    assert (cold.cached_tokens, cold.cold) == (0, 29)
    assert (warm.cold, warm.hit > 0.9) == (0, True)


def test_a_persona_that_others_use_stays_warm() -> None:
    """One who comes back after an hour finds it, and nothing of their own."""
    rare, often = even(5, gap=3600.0), even(400, gap=50.0)
    found = played([rare, often], WindowRule(), Circumstances(retention_s=600.0))

    alone = played([often], WindowRule(), Circumstances(retention_s=600.0))
    assert found.cold == 4
    assert found.cached_tokens - alone.cached_tokens == 5 * 800


def test_a_cache_for_half_the_working_set_holds_short_windows_better() -> None:
    """40 people in turn; the cache has room for the short windows of all, not for the long ones."""
    people = [even(100, gap=400.0, start=1e6 + at * 10, persona=f"p{at}") for at in range(40)]
    given_ = Circumstances(cache_tokens=40 * 3500)
    short, long = (
        played(people, WindowRule(min_turns=low, max_turns=high), given_) for low, high in ((5, 12), (20, 40))
    )
    assert short.cold == 0
    assert long.cold > 1000


def test_every_cut_costs_a_summary() -> None:
    """By the prompt it reads from the cache, its instruction and what it writes."""
    found = played([even(31)], WindowRule(min_turns=10, max_turns=20), Circumstances(summary_tokens=200))
    assert (found.cuts, found.summaries) == (1, 1)
    assert found.summary_units == pytest.approx(0.1 * (800 + 21 * 160) + 150 + 5 * 200)


def test_what_a_prompt_shows_by_distance() -> None:
    """21 turns under a window of 10 to 20: only the last prompt has lost something."""
    sketches = [even(22)]
    found = played(sketches, WindowRule(min_turns=10, max_turns=20), Circumstances())
    assert existing(sketches, 20) == 2
    assert found.showing(20) == 1
    assert found.showing(10) == existing(sketches, 10) == 12


def test_turns_are_replayed_in_the_order_in_which_people_wrote() -> None:
    first, second = even(2, gap=100.0, start=1000.0), even(2, gap=10.0, start=1050.0)
    assert list(in_order([first, second])) == [0, 1, 1, 0]
    without_times = sketch([Sized(1, 1), Sized(1, 1)])
    assert list(in_order([first, without_times])) == [1, 1, 0, 0]


def test_facts_of_a_traffic() -> None:
    """Means, quantiles, the share of pauses that the retention does not span, and who is active."""
    found = measured([even(11, gap=100.0), even(3, gap=1000.0)], retention_s=600.0)
    assert (found.dialogues, found.turns, found.characters) == (2, 14, 1)
    assert found.gaps is not None
    assert (found.gaps.count, found.gaps.median) == (12, 100.0)
    assert found.p_cold == pytest.approx(2 / 12)
    assert found.active_most == 2
    assert found.turn_tokens.mean == 160
    assert found.persona_tokens == 800
    assert found.facts(summary_tokens=200, r0=0.1, sigma=0, block=16, p_cold=found.p_cold).user_tokens == 40


def test_no_turns_no_facts() -> None:
    with pytest.raises(ValueError, match="nothing to advise on"):
        measured([sketch([])], retention_s=600.0)


def test_rows_are_kept_as_numbers() -> None:
    one = even(3)
    assert array("I", [40, 40, 40]) == array("I", one.asked)
    assert one.gaps() == [60.0, 60.0]
