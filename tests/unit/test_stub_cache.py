"""The stub node's block cache, against naive models and against a recorded run of a real vLLM."""

import json
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from bench.stub_node.cache import BlockCache, Lease, chain, chain_seed

RECORDINGS = Path(__file__).resolve().parents[2] / "bench" / "stub_node" / "recordings"

few_ids = st.lists(st.integers(0, 2), max_size=40)
"""Prompts over so small an alphabet that they share prefixes."""

block_sizes = st.sampled_from([1, 2, 3, 16])


def ids(values: list[int]) -> "array[int]":
    return array("I", values)


def serve(cache: BlockCache, prompt: list[int], answer: list[int], *, seed: int = 0) -> int:
    """Run one request through the cache as the engine does; the cached tokens that it would report."""
    size = cache.block_size
    hashes = chain(ids(prompt), block_size=size, seed=seed)
    kept = prompt + answer[:-1]
    lease = cache.acquire(hashes, prompt_tokens=len(prompt), total_tokens=len(kept))
    assert lease is not None
    cache.store(lease, hashes)
    cache.store(lease, chain(ids(kept), block_size=size, seed=seed, known=lease.held))
    cache.release(lease)
    return lease.hit_blocks * size


def is_stored(cache: BlockCache, block: int) -> bool:
    return cache.match([block], prompt_tokens=cache.block_size + 1) == 1


class TestChain:
    @given(few_ids, block_sizes, st.integers(0, 10))
    def test_chain_of_a_prefix_is_a_prefix_of_the_chain(
        self, values: list[int], size: int, blocks: int
    ) -> None:
        """What a block is called depends on nothing that comes after it."""
        whole = chain(ids(values), block_size=size)

        assert whole[:blocks] == chain(ids(values[: blocks * size]), block_size=size)[:blocks]

    @given(st.lists(st.integers(0, 9), min_size=1, max_size=40), block_sizes, st.data())
    def test_changed_token_renames_its_block_and_all_after_it(
        self, values: list[int], size: int, data: st.DataObject
    ) -> None:
        """A block is named by its tokens and its whole past."""
        place = data.draw(st.integers(0, len(values) - 1))
        changed = [*values[:place], values[place] + 1, *values[place + 1 :]]
        before, after = (chain(ids(v), block_size=size) for v in (values, changed))
        first = place // size

        assert before[:first] == after[:first]
        assert all(a != b for a, b in zip(before[first:], after[first:], strict=True))

    @given(few_ids, block_sizes, st.integers(0, 10))
    def test_known_blocks_are_continued_not_recomputed(
        self, values: list[int], size: int, blocks: int
    ) -> None:
        """Extending a chain gives the chain of the whole."""
        whole = chain(ids(values), block_size=size)

        assert whole == chain(ids(values), block_size=size, known=whole[:blocks])

    def test_salt_and_adapter_share_no_block_with_the_base(self) -> None:
        """Equal prompts under different seeds have no block in common."""
        values = ids(list(range(32)))
        seeds = [
            chain_seed(),
            chain_seed("salt"),
            chain_seed("", "lora", "a", "/a"),
            chain_seed("", "lora", "a", "/b"),
        ]
        names = [set(chain(values, block_size=16, seed=seed)) for seed in seeds]

        assert 8 == len(set.union(*names))


class TestBlockCache:
    @given(st.lists(st.tuples(few_ids.filter(bool), few_ids.filter(bool)), max_size=12), block_sizes)
    def test_hit_is_the_longest_stored_prefix_of_full_blocks(
        self, requests: list[tuple[list[int], list[int]]], size: int
    ) -> None:
        """Against the naive model: a set of all prefixes ever computed, with unbounded capacity."""
        cache = BlockCache(block_size=size, capacity=10_000)
        computed: set[tuple[int, ...]] = set()
        for prompt, answer in requests:
            lengths = range(size, len(prompt), size)
            expected = max((n for n in lengths if tuple(prompt[:n]) in computed), default=0)

            assert expected == serve(cache, prompt, answer)

            kept = prompt + answer[:-1]
            computed |= {tuple(kept[:n]) for n in range(size, len(kept) + 1, size)}

    @given(few_ids.filter(bool), few_ids.filter(bool), few_ids.filter(bool), block_sizes)
    def test_follow_up_hits_all_full_blocks_but_the_last_token(
        self, prompt: list[int], answer: list[int], said: list[int], size: int
    ) -> None:
        """The hit that a router expects: floor((P + C - 1) / B) * B, at most floor((P' - 1) / B) * B."""
        cache = BlockCache(block_size=size, capacity=10_000)
        serve(cache, prompt, answer)
        follow_up = prompt + answer + said
        expected = min((len(prompt) + len(answer) - 1) // size, (len(follow_up) - 1) // size) * size

        assert expected == serve(cache, follow_up, [0])

    def test_least_recently_released_dialogue_is_evicted_first(self) -> None:
        """A dialogue that was used again outlives one that was not."""
        cache = BlockCache(block_size=4, capacity=4)
        first, second, third = ([n] * 9 for n in (1, 2, 3))
        serve(cache, first, [0])
        serve(cache, [2] * 5, [0])
        serve(cache, first, [0])
        serve(cache, [3] * 5, [0])

        assert [8, 0, 4] == [
            4 * cache.match(chain(ids(v), block_size=4), prompt_tokens=9) for v in (first, second, third)
        ]

    def test_tail_of_a_dialogue_is_evicted_before_its_head(self) -> None:
        """Losing one block of a dialogue costs its end, not all of it."""
        cache = BlockCache(block_size=4, capacity=4)
        serve(cache, [1] * 13, [0])
        serve(cache, [2] * 5, [0])

        assert 2 == cache.match(chain(ids([1] * 13), block_size=4), prompt_tokens=13)

    def test_request_waits_rather_than_take_blocks_that_others_hold(self) -> None:
        """What running requests hold is never evicted."""
        cache = BlockCache(block_size=4, capacity=4)
        lease = cache.acquire([], prompt_tokens=3, total_tokens=10)
        assert lease is not None

        assert cache.acquire([], prompt_tokens=3, total_tokens=8) is None
        assert 3 == cache.held_blocks

        cache.release(lease)

        assert cache.acquire([], prompt_tokens=3, total_tokens=8) is not None

    def test_storing_more_than_was_leased_is_refused(self) -> None:
        """A request cannot grow past the room that it was given."""
        cache = BlockCache(block_size=4, capacity=4)
        lease = cache.acquire([], prompt_tokens=3, total_tokens=4)
        assert lease is not None

        with pytest.raises(ValueError, match="do not fit"):
            cache.store(lease, [1, 2])

    def test_clear_keeps_what_running_requests_hold(self) -> None:
        """A reset forgets the past, not the present."""
        cache = BlockCache(block_size=4, capacity=8)
        serve(cache, [1] * 9, [0])
        hashes = chain(ids([2] * 9), block_size=4)
        lease = cache.acquire(hashes, prompt_tokens=9, total_tokens=9)
        assert lease is not None
        cache.store(lease, hashes)

        assert 2 == cache.clear()
        assert 2 == cache.stored_blocks
        assert 2 == cache.match(hashes, prompt_tokens=9)

    def test_recorded_vllm_run_is_reproduced_token_by_token(self) -> None:
        """Seventy requests to a real vLLM with room for 25 blocks: every hit, so every eviction, agrees."""
        recorded = json.loads((RECORDINGS / "vllm-0.32-block-32.json").read_text())
        cache = BlockCache(block_size=recorded["block_size"], capacity=recorded["usable_blocks"])
        dialogues: dict[int, list[int]] = {}
        ours = []
        for step in recorded["steps"]:
            past = recorded["persona"] if step["fresh"] else dialogues[step["dialogue"]]
            prompt = past + step["said"]
            ours.append(serve(cache, prompt, step["answer"]))
            dialogues[step["dialogue"]] = prompt + step["answer"]

        assert [step["cached"] for step in recorded["steps"]] == ours


class CacheUnderLoad(RuleBasedStateMachine):
    """Overlapping requests on a small cache, watched by an unbounded one."""

    running: Bundle[tuple[list[int], int, Lease]] = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.cache = BlockCache(block_size=2, capacity=12)
        self.ever: set[int] = set()
        self.parents: dict[int, int | None] = {}
        self.leases: list[Lease] = []

    @rule(target=running, prompt=few_ids.filter(bool), answer=st.integers(1, 5))
    def start(self, prompt: list[int], answer: int) -> tuple[list[int], int, Lease]:
        hashes = chain(ids(prompt), block_size=2)
        total = len(prompt) + answer - 1
        hit = self.cache.match(hashes, prompt_tokens=len(prompt))
        assert all(block in self.ever for block in hashes[:hit])
        lease = self.cache.acquire(hashes, prompt_tokens=len(prompt), total_tokens=total)
        if lease is None:
            return prompt, answer, Lease(hit_blocks=0)
        assert hit == lease.hit_blocks
        self.leases.append(lease)
        self._store(lease, hashes)
        return prompt, answer, lease

    @rule(request=consumes(running), finished=st.booleans())
    def end(self, request: tuple[list[int], int, Lease], finished: bool) -> None:
        prompt, answer, lease = request
        if lease not in self.leases:
            return
        if finished:
            self._store(lease, chain(ids(prompt + [2] * (answer - 1)), block_size=2))
        self.cache.release(lease)
        self.cache.release(lease)
        self.leases.remove(lease)

    @rule()
    def reset(self) -> None:
        self.cache.clear()

    def _store(self, lease: Lease, hashes: list[int]) -> None:
        self.cache.store(lease, hashes)
        self.ever.update(hashes)
        self.parents.update(zip(hashes, [None, *hashes], strict=False))

    @invariant()
    def capacity_is_never_exceeded(self) -> None:
        blank = sum(lease.blank for lease in self.leases)
        assert self.cache.stored_blocks + blank <= self.cache.capacity
        assert len({block for lease in self.leases for block in lease.held}) + blank == self.cache.held_blocks

    @invariant()
    def held_blocks_stay_stored(self) -> None:
        assert all(is_stored(self.cache, block) for lease in self.leases for block in lease.held)

    @invariant()
    def no_block_outlives_its_parent(self) -> None:
        for block, parent in self.parents.items():
            if parent is not None and is_stored(self.cache, block):
                assert is_stored(self.cache, parent)


CacheUnderLoad.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCacheUnderLoad = CacheUnderLoad.TestCase
