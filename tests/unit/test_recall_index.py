"""The recall index: words of archived turns."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.passage import Line, Passage
from history.recall import RecallRule, sentences
from history.recall_index import RecallIndex

RULE = RecallRule(asking=0.01, telling=0.01, coverage=0.01, within=0.01)
MANY = 1_000

spoken = st.lists(
    st.sampled_from(
        [
            "my",
            "cat",
            "cats",
            "Biscuit",
            "sister",
            "moved",
            "Café",
            "妹妹",
            "的",
            "猫",
            "成都",
            "?",
            "。",
            "AND",
        ]
    ),
    min_size=1,
    max_size=8,
).map(" ".join)


def passages(texts: list[str], start: int = 0) -> list[Passage]:
    return [Passage(at, 0.0, (Line("user", text),)) for at, text in enumerate(texts, start)]


def indexed(texts: list[str], *, max_turns: int = MANY) -> RecallIndex:
    index = RecallIndex()
    index.add(passages(texts), max_turns=max_turns)
    return index


def found(index: RecallIndex, text: str, *, cut: int = MANY, rule: RecallRule = RULE) -> list[int]:
    return [one.position for one in index.search(sentences(text), rule, cut=cut)]


@pytest.mark.parametrize(
    ("question", "position"),
    [
        ("Where did my sisters move?", 1),
        ("What about the CAFE?", 2),
        ("妹妹住在哪里？", 3),
        ("我的猫呢？", 4),
    ],
)
def test_a_question_finds_the_turn_it_refers_to(question: str, position: int) -> None:
    """By stems, without diacritics, by pairs and by single characters."""
    texts = [
        "nothing here",
        "my sister moved to Oslo",
        "a café in the old town",
        "我妹妹搬到成都了",
        "养了一只猫",
    ]
    index = indexed(texts + [f"filler {at}" for at in range(30)])

    assert position in found(index, question)


@given(st.lists(spoken, min_size=1, max_size=12), spoken, st.integers(0, 14))
@settings(max_examples=40)
def test_nothing_from_the_cut_on_is_ever_found(texts: list[str], question: str, cut: int) -> None:
    """The index may know more than the cut allows, after a branch moved it back."""
    assert [at for at in found(indexed(texts), question, cut=cut) if at >= cut] == []


def test_turns_behind_the_cut_do_not_crowd_out_those_before_it() -> None:
    """However many match there."""
    index = indexed(["the lighthouse of Porto"] * 61 + [f"filler {at}" for at in range(900)])

    assert found(index, "lighthouse of Porto?", cut=1) == [0]


@given(st.lists(spoken, min_size=1, max_size=14), st.lists(st.integers(1, 5), max_size=14), spoken)
@settings(max_examples=40)
def test_adding_bit_by_bit_equals_building_at_once(texts: list[str], steps: list[int], question: str) -> None:
    """However the cut moved, the same is found, also when turns are handed over twice."""
    bit_by_bit, at = RecallIndex(), 0
    for step in [*steps, len(texts)]:
        bit_by_bit.add(passages(texts)[max(0, at - 1) : at + step], max_turns=MANY)
        at = min(len(texts), at + step)

    assert indexed(texts).search(sentences(question), RULE, cut=MANY) == bit_by_bit.search(
        sentences(question), RULE, cut=MANY
    )


@given(st.lists(spoken, min_size=1, max_size=14), st.integers(1, 6), spoken)
@settings(max_examples=40)
def test_oldest_turns_beyond_the_bound_leave_no_trace(texts: list[str], bound: int, question: str) -> None:
    """What is found, and how it is weighed, is as if they had never been added."""
    index = indexed(texts, max_turns=bound)
    first = max(0, len(texts) - bound)
    fresh = RecallIndex(start=first)
    fresh.add(passages(texts)[first:], max_turns=MANY)

    assert (first, len(texts), fresh._words) == (index.start, index.stop, index._words)
    assert fresh.search(sentences(question), RULE, cut=MANY) == index.search(
        sentences(question), RULE, cut=MANY
    )


def test_a_missing_turn_is_refused_and_changes_nothing() -> None:
    """A gap would make every later position wrong."""
    index = indexed(["one cat", "two cats"])

    with pytest.raises(ValueError, match="turn 2 comes next, not 3"):
        index.add(passages(["four cats"], start=3), max_turns=MANY)

    assert (index.stop, found(index, "cats?")) == (2, [0, 1])


@pytest.mark.parametrize(
    "text", ['"', "cat AND NOT dog", "body:cat*", "NEAR(cat, 2)", "'; DROP TABLE turns;--", "^cat -x"]
)
def test_no_message_is_a_query_or_a_statement(text: str) -> None:
    """Operators of query languages are words or nothing."""
    index = indexed(["a cat sat", "nothing of the kind"])

    found(index, f"{text}?")

    assert [0] == found(index, "the cat?")


@given(st.text(max_size=400), st.text(max_size=400))
@settings(max_examples=60)
def test_any_text_can_be_kept_and_asked(said: str, asked: str) -> None:
    """Whatever script, sign or control character it has."""
    assert set(found(indexed([said, "x"]), asked)) <= {0, 1}


def test_an_empty_archive_finds_nothing() -> None:
    """Before the first cut there is nothing to recall."""
    assert found(RecallIndex(), "Where is my cat?") == []


def test_searching_and_adding_from_many_threads_keeps_the_index_whole() -> None:
    """Messages search while turns that left the window are added."""
    index, texts = RecallIndex(), [f"the cat number {at} is called name{at}" for at in range(200)]
    errors: list[BaseException] = []

    def search() -> None:
        try:
            for at in range(60):
                found(index, f"what is name{at}?")
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(0, len(texts), 10):
        index.add(passages(texts[at : at + 10], start=at), max_turns=MANY)
    for thread in threads:
        thread.join()

    assert (errors, found(index, "what is name150?")) == ([], [150])


def test_size_grows_with_what_is_kept_and_is_given_back() -> None:
    """What the bound of the cache counts."""
    index = indexed(["a cat"])
    before = index.size
    index.add(passages([f"turn {at} about topic{at} " * 20 for at in range(1, 300)], start=1), max_turns=MANY)
    assert index.size > before + 100_000

    index.close()

    assert index.size == 0
