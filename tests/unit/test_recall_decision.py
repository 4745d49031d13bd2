"""Recall's decision: what a match is worth, what is enough, what fits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.conversation import Turn
from history.message import digests, message
from history.passage import Line, Passage, remembered, tokens_of
from history.recall import (
    MAX_TERMS,
    Corpus,
    Found,
    Match,
    RecallRule,
    Sentence,
    Term,
    Wanted,
    cleared,
    fitted,
    idf,
    sentences,
    wanted,
)
from history.tail import Tail, tail_text
from history.words import words

RULE = RecallRule()
NOBODY = Wanted(stems=(), sentences=(), corpus=Corpus(turns=0, words=0))


def passage(position: int, *texts: str) -> Passage:
    sides = ("user", "assistant")
    lines = tuple(Line(sides[at % 2], text) for at, text in enumerate(texts))
    return Passage(position=position, at=86_400.0 * position, lines=lines)


def asked_of(text: str, document_frequency: dict[str, int], *, turns: int) -> Wanted:
    """What a message looks for in an archive whose words are counted like this; others are unknown."""
    asked = sentences(text)
    terms = [Term(word, word, document_frequency.get(word, 0)) for one in asked for word in one.words]
    return wanted(asked, terms, Corpus(turns=turns, words=20 * turns))


@given(st.integers(1, 100_000).flatmap(lambda total: st.tuples(st.integers(0, total - 1), st.just(total))))
def test_a_rarer_word_says_more(pair: tuple[int, int]) -> None:
    """And no word says less than nothing, also one that every turn has."""
    turns, total = pair

    assert idf(turns, total) > idf(turns + 1, total) > 0


@pytest.mark.parametrize("turns", [50, 1_000, 10_000])
def test_threshold_means_the_same_in_small_and_large_archives(turns: int) -> None:
    """Half the rarity of a unique word: one that √N of N turns have is about on the edge, in each."""
    few, many = round(math.sqrt(turns) / 2), round(math.sqrt(turns) * 2)
    rare = asked_of("Where is the lighthouse?", {"lighthouse": few}, turns=turns)
    frequent = asked_of("Where is the dinner?", {"dinner": many}, turns=turns)

    assert len(cleared(rare, {at: ["lighthouse"] for at in range(few)}, RULE)) == min(few, 32)
    assert cleared(frequent, {at: ["dinner"] for at in range(many)}, RULE) == ()


def test_telling_needs_more_than_asking() -> None:
    """The same words recall for a question what they do not recall for small talk."""
    counts = {"lighthouse": 2}
    asks = asked_of("Do you remember the lighthouse?", counts, turns=500)
    tells = asked_of("There was a lighthouse.", counts, turns=500)

    assert len(cleared(asks, {7: ["lighthouse"]}, RULE)) == 1
    assert cleared(tells, {7: ["lighthouse"]}, RULE) == ()


def test_what_only_telling_touches_gets_a_smaller_budget() -> None:
    """Small talk that happens to touch old turns costs little; a question beside it gets the whole budget."""
    found = {at: Found(passage(at, f"turn {at} " + "word " * 30), 30) for at in range(8)}
    told = [Match(at, 9.0, (), asked=False) for at in found]

    few = fitted(told, found, NOBODY, RULE, cut=8)
    many = fitted([*told[1:], Match(0, 9.0, ())], found, NOBODY, RULE, cut=8)

    assert sum(tokens_of(one.text()) for one in few) <= RULE.max_telling_tokens
    assert len(few) < len(many)


def test_a_question_behind_a_long_story_counts_by_itself() -> None:
    """Coverage is of a sentence: what was told before does not drown what is asked."""
    story = "Today the train stopped twice, the office was flooded, lunch came cold and Peter shouted. " * 3

    sought = asked_of(f"{story} What was the name of my dentist?", {"dentist": 2, "name": 9}, turns=500)

    assert [match.position for match in cleared(sought, {4: ["dentist"]}, RULE)] == [4]


def test_a_character_in_a_pair_that_matches_is_not_counted_again() -> None:
    """妹妹 is one word's evidence, not three."""
    counts = {"妹妹": 4, "妹": 4}
    sought = asked_of("妹妹呢？", counts, turns=200)

    both = cleared(sought, {1: ["妹", "妹妹"]}, RULE)
    pair = cleared(sought, {1: ["妹妹"]}, RULE)

    assert [match.evidence for match in pair] == [match.evidence for match in both]


def test_words_in_everybodys_mouth_are_not_searched_for() -> None:
    """They cost the most and say the least."""
    sought = asked_of("What about dinner at the lighthouse?", {"dinner": 400, "lighthouse": 3}, turns=1_000)

    assert sought.stems == ("lighthouse",)


@given(st.text(max_size=6_000), st.integers(1, 20_000))
def test_a_message_of_any_length_asks_for_a_bounded_number_of_words(text: str, turns: int) -> None:
    """At most 32 terms, which together at most 1,500 turns have, unless a single one has more."""
    said_by = {word: 1 + len(word) * turns // 700 for word in words(text)}

    sought = asked_of(text, said_by, turns=turns)

    assert len(sought.stems) <= MAX_TERMS
    assert sum(said_by[stem] for stem in sought.stems) <= 1_500 or len(sought.stems) == 1


def test_ties_go_to_the_newer_turn() -> None:
    """What was said last is more likely to hold."""
    sought = asked_of("Where is the lighthouse?", {"lighthouse": 2}, turns=300)

    assert [match.position for match in cleared(sought, {5: ["lighthouse"], 9: ["lighthouse"]}, RULE)] == [
        9,
        5,
    ]


def test_the_stronger_is_kept_where_not_all_fit_and_order_is_the_dialogues() -> None:
    """Chosen by score, shown in the order it was said."""
    found = {at: Found(passage(at, f"turn {at} " + "word " * 30), 30) for at in (1, 5, 9)}
    matches = (Match(9, 9.0, ()), Match(1, 8.0, ()), Match(5, 7.0, ()))

    kept = fitted(matches, found, NOBODY, RecallRule(max_tokens=150), cut=10)

    assert [one.position for one in kept] == [1, 9]


@given(st.integers(0, 12), st.lists(st.integers(0, 12), unique=True, max_size=8))
def test_nothing_at_or_behind_the_cut_is_recalled(cut: int, positions: list[int]) -> None:
    """The window shows it already."""
    found = {at: Found(passage(at, "a lighthouse"), 2) for at in positions}

    kept = fitted([Match(at, 5.0, ()) for at in positions], found, NOBODY, RULE, cut=cut)

    assert sorted(at for at in positions if at < cut) == [one.position for one in kept]


hostile_text = st.one_of(
    st.text(max_size=400), st.sampled_from(["<|im_end|>" * 60, "</recalled>" * 80, "长" * 900])
)


@given(
    st.lists(st.lists(hostile_text, min_size=1, max_size=3), max_size=8),
    st.integers(1, 700),
    st.integers(1, 200),
)
def test_what_is_recalled_is_bounded_whatever_was_said(
    said: list[list[str]], max_tokens: int, per_passage: int
) -> None:
    """The block as it stands in the prompt is within the budget, in both languages."""
    rule = RecallRule(max_tokens=max_tokens, max_passage_tokens=per_passage)
    found = {at: Found(passage(at, *texts), 10) for at, texts in enumerate(said)}

    kept = fitted([Match(at, 5.0, ("长",)) for at in found], found, NOBODY, rule, cut=len(said))

    for user_text in ("hello there", "你好你好"):
        whole = tail_text(Tail(recalled=kept), user_text=user_text, max_recalled_tokens=10_000)
        assert tokens_of(whole) <= max_tokens


def test_a_long_turn_is_quoted_around_what_was_asked_for() -> None:
    """Not its beginning, and not more than one turn may take."""
    chatter = "We talked about the weather and the news and many other things. " * 8
    turn = passage(0, f"{chatter}My locker code is 4172. {chatter}", "Noted.")

    (kept,) = fitted([Match(0, 5.0, ("locker",))], {0: Found(turn, 90)}, NOBODY, RULE, cut=1)

    assert "My locker code is 4172." in kept.text()
    assert kept.text().startswith("…")
    assert tokens_of(kept.text()) <= RULE.max_passage_tokens


def test_one_long_sentence_is_cut_where_it_matters() -> None:
    """Also a text without a single full stop is quoted around the word."""
    turn = passage(0, "and then " * 300 + "the locker code is 4172 " + "and then " * 300)

    (kept,) = fitted([Match(0, 5.0, ("locker",))], {0: Found(turn, 90)}, NOBODY, RULE, cut=1)

    assert "locker code is 4172" in kept.text()
    assert tokens_of(kept.text()) <= RULE.max_passage_tokens


def test_a_passage_has_words_and_no_tools() -> None:
    """Tool calls, results and pictures are not what was said."""
    said = (
        message(
            {
                "role": "user",
                "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {}}],
            }
        ),
        message(
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
        ),
        message({"role": "tool", "tool_call_id": "1", "content": "secret table"}),
        message({"role": "assistant", "content": "A cat!"}),
    )
    turn = Turn(messages=tuple(one.json for one in said), digests=digests(said), at=5.0)

    kept = remembered(3, turn, max_chars=100)

    assert kept == Passage(position=3, at=5.0, lines=(Line("user", "Look"), Line("assistant", "A cat!")))


def test_sentences_know_whether_they_ask() -> None:
    """In both languages, with and without a question mark."""
    text = "I am tired. what was my sister's city. 我累了。还记得我的猫吗"

    assert [(one.asks, one.words[0]) for one in sentences(text)] == [
        (False, "tired"),
        (True, "sister"),
        (False, "累"),
        (True, "猫"),
    ]


@pytest.mark.parametrize(
    "text", ["I feel nervous and I don't know why.", "有点累，也不知道为什么。", "That was all."]
)
def test_a_question_word_alone_asks_nothing(text: str) -> None:
    """What one does not know oneself is no question to the other."""
    assert [one.asks for one in sentences(text) if one.words] == [False] * len(sentences(text))


def test_rule_without_room_is_refused() -> None:
    """A budget of nothing is a mistake; `enabled: false` says no recall."""
    with pytest.raises(ValueError, match="max_tokens"):
        RecallRule(max_tokens=0)


def test_unknown_sentence_finds_nothing() -> None:
    """Words nobody said are worth nothing."""
    sought = wanted((Sentence(("zebra",), "Zebra?"),), [Term("zebra", "zebra", 0)], Corpus(10, 100))

    assert (sought.stems, cleared(sought, {}, RULE)) == ((), ())
