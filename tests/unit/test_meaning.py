"""Vectors of turns: how they are kept, compared and merged with what words find."""

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.meaning import (
    MAX_NEAR,
    MeaningRule,
    form_of,
    fused,
    is_of_form,
    quantised,
    read_embeddings,
    stamp,
)
from history.vector_index import VectorIndex

COMPONENTS = st.floats(-1e3, 1e3).filter(lambda one: one == 0 or abs(one) > 1e-3)
VECTORS = st.lists(COMPONENTS, min_size=1, max_size=64).filter(any)


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.hypot(*one) / math.hypot(*other)


def components(data: bytes) -> list[float]:
    return [float(one) for one in memoryview(data).cast("b")]


def index(vectors: list[list[float]], *, start: int = 0) -> VectorIndex:
    made = VectorIndex(start=start)
    for at in range(len(vectors)):
        made.saw(b"turn %d" % at)
    made.take(start, [stamp(b"turn %d" % at) + quantised(one) for at, one in enumerate(vectors)])
    return made


def crowd(count: int, dice: random.Random, size: int = 64) -> list[list[float]]:
    return [[dice.gauss(0, 1) for _ in range(size)] for _ in range(count)]


@given(VECTORS)
def test_quantising_keeps_every_component_within_half_a_step(vector: list[float]) -> None:
    step = max(map(abs, vector)) / 127

    for kept, was in zip(components(quantised(vector)), vector, strict=True):
        assert abs(kept * step - was) <= step / 2 * 1.001


@given(VECTORS, st.floats(0.01, 100))
def test_length_does_not_matter(vector: list[float], factor: float) -> None:
    """Models need not return unit vectors."""
    scaled = components(quantised([factor * one for one in vector]))

    assert all(abs(a - b) <= 1 for a, b in zip(scaled, components(quantised(vector)), strict=True))


@given(st.integers(0, 1000))
def test_cosines_survive(seed: int) -> None:
    one, other = crowd(2, random.Random(seed), 256)

    kept = cosine(components(quantised(one)), components(quantised(other)))

    assert abs(kept - cosine(one, other)) < 0.02


@pytest.mark.parametrize("vector", [[], [0.0, 0.0], [math.inf, 1.0]])
def test_what_has_no_direction_is_refused(vector: list[float]) -> None:
    with pytest.raises(ValueError, match="no direction"):
        quantised(vector)


@given(st.lists(st.lists(st.integers(0, 50), unique=True, max_size=20), max_size=3))
def test_merging_loses_and_doubles_nothing(rankings: list[list[int]]) -> None:
    merged = fused(*rankings)

    assert sorted(merged) == sorted({position for ranking in rankings for position in ranking})


@given(st.lists(st.integers(0, 50), unique=True, max_size=20))
def test_one_ranking_alone_stays_as_it_is(ranking: list[int]) -> None:
    """Without vectors nothing changes."""
    assert fused(ranking) == fused(ranking, []) == fused([], ranking) == ranking


@given(
    st.lists(st.integers(0, 9), unique=True, min_size=2, max_size=9),
    st.lists(st.integers(0, 9), unique=True, min_size=2, max_size=9),
)
def test_what_is_before_another_in_both_stays_before_it(one: list[int], other: list[int]) -> None:
    merged = fused(one, other)
    both = [position for position in one if position in other]

    for a in both:
        for b in both:
            if one.index(a) < one.index(b) and other.index(a) < other.index(b):
                assert merged.index(a) < merged.index(b)


@given(st.integers(0, 200))
def test_only_what_stands_out_is_found(seed: int) -> None:
    """One of many that nearly is what was asked for; of what is like the rest nothing."""
    dice = random.Random(seed)
    vectors = crowd(300, dice, 128)
    asked = [one + dice.gauss(0, 0.3) for one in vectors[200]]
    made = index(vectors)

    assert made.search(asked, cut=300, stands_out=1.5) == [200]
    assert made.search(asked, cut=200, stands_out=1.5) == []
    assert made.search(crowd(1, dice, 128)[0], cut=300, stands_out=1.5) == []


def test_no_more_than_a_few_are_found() -> None:
    dice = random.Random(3)
    vectors = crowd(200, dice)
    vectors[50:60] = [vectors[50]] * 10

    assert index(vectors).search(vectors[50], cut=200, stands_out=0.8) == [59, 58, 57][:MAX_NEAR]


def test_of_a_handful_of_turns_nothing_stands_out() -> None:
    vectors = crowd(5, random.Random(1))

    assert index(vectors).search(vectors[0], cut=5, stands_out=0.0) == []


def test_a_vector_is_taken_only_for_the_turn_it_was_made_of() -> None:
    vectors = crowd(4, random.Random(1))
    records = [stamp(b"turn %d" % at) + quantised(one) for at, one in enumerate(vectors)]
    made = VectorIndex()
    for at in (0, 1, 9, 3):
        made.saw(b"turn %d" % at)

    made.take(1, records[1:])
    assert (made.start, made.stop) == (1, 2)
    made.take(2, records[2:])
    assert made.stop == 2


def test_the_oldest_go_and_positions_stay() -> None:
    dice = random.Random(5)
    vectors = crowd(100, dice)
    made = index(vectors)
    made.keep_newest(40)

    assert (made.start, made.stop, made.seen) == (60, 100, 100)
    assert made.search(vectors[70], cut=100, stands_out=1.2) == [70]
    assert made.search(vectors[10], cut=100, stands_out=1.2) == []


def test_a_model_that_became_another_under_its_name_finds_nothing_and_begins_anew() -> None:
    vectors = crowd(20, random.Random(2))
    made = index(vectors)

    assert made.search([1.0, 2.0], cut=20, stands_out=0.0) == []
    made.saw(b"next")
    made.take(20, [stamp(b"next") + quantised([1.0, 2.0])])
    assert made.stop == made.start


def test_what_makes_other_vectors_has_another_form() -> None:
    rule = MeaningRule(model="m")
    others = (
        MeaningRule(model="n"),
        MeaningRule(model="m", turn_prefix="passage: "),
        MeaningRule(model="m", max_chars=9),
    )

    assert len({form_of(one) for one in (rule, *others)}) == 4
    assert form_of(MeaningRule(model="m", query_prefix="query: ", wait_s=1)) == form_of(rule)
    assert is_of_form(f"{form_of(rule)}/384", form_of(rule))
    assert not is_of_form("", form_of(rule))


def answer(*vectors: object) -> bytes:
    data = [{"index": at, "embedding": vector} for at, vector in reversed(list(enumerate(vectors)))]
    return msgspec.json.encode({"data": data, "model": "m"})


def test_answers_are_read_in_the_order_of_what_was_sent() -> None:
    assert read_embeddings(answer([1.0, 0], [0, 1]), 2) == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[[",
        b"{}",
        answer([1.0]),
        answer([1.0], [1.0, 2.0]),
        answer([0.0], [1.0]),
        answer("AAAA", "AAAA"),
        answer([1.0] * 9000, [1.0] * 9000),
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"embeddings|vector"):
        read_embeddings(body, 2)
