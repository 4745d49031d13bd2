"""What calibrates the simulator: its cache is told token ids, its clock is fitted to seconds."""

import random

import pytest

from bench.calibration import BLOCK, SimulatedCache, attention_tokens, fitted
from bench.fleet.card import A10G_7B


def ids(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(50_000), k=count)


def test_a_prompt_finds_whole_blocks_of_what_it_shares_with_one_before() -> None:
    cache, prompt, answer = SimulatedCache(64 * BLOCK), ids(1, 100), ids(2, 40)

    assert 0 == cache.ask(prompt, answer)
    assert 3 * BLOCK == cache.ask(prompt, answer)
    # 100 + 39 tokens have KV: four blocks, of which a longer prompt finds all.
    assert 4 * BLOCK == cache.ask([*prompt, *answer, *ids(3, 50)], answer)
    assert 2 * BLOCK == cache.ask([*prompt[:70], *ids(4, 50)], answer)
    assert 0 == cache.ask(ids(5, 10), [])


def test_what_was_used_least_recently_goes_first_its_end_before_its_beginning() -> None:
    cache = SimulatedCache(8 * BLOCK)
    first, second, third = (ids(seed, 3 * BLOCK + 5) for seed in (1, 2, 3))
    for prompt in (first, second, third):
        cache.ask(prompt, [7])

    # Third needed four blocks, one of them for its answer; two of the first were in the way.
    assert 3 * BLOCK == cache.ask(second, [7])
    assert cache.ask(first, [7]) in (BLOCK, 0)


@pytest.mark.parametrize("context", [1000, 8000, 64_000])
def test_rate_and_overhead_are_found_again(context: int) -> None:
    card = A10G_7B
    lengths = [(0, 100), (0, 900), (600, 300), (1500, 1200), (200, 50), (3000, 2000)]
    seen = [(c, u, 0.02 + u * (1 + (c + u / 2) / context) / 500) for c, u in lengths]

    assert context == attention_tokens(seen)
    slope, overhead = fitted(seen, type(card)("", 0, 0.0, 0.0, 0.0, attention_tokens=context))
    assert (500, 0.02) == (pytest.approx(1 / slope), pytest.approx(overhead))
