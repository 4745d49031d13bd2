"""Words: what recall compares."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.words import is_unspaced, words

NODS = (
    *(
        "hi",
        "hey!",
        "ok",
        "haha",
        "hahaha",
        "How are you?",
        "good night, sleep well",
        "Good morning!",
        "yes please",
    ),
    *("你好", "好的", "嗯嗯", "在吗", "哈哈哈", "晚安", "早上好", "谢谢你", "还记得吗？", "真的吗", "怎么了"),
)


@pytest.mark.parametrize("text", NODS)
def test_greetings_and_nods_have_no_words(text: str) -> None:
    """What says nothing finds nothing, in both languages."""
    assert words(text) == []


def test_spaced_words_lose_case_width_and_diacritics() -> None:
    """Café, CAFÉ and a full-width form are one word."""
    assert words("Café CAFE\u0301 ＣＡＦＥ") == ["cafe"] * 3  # noqa: RUF001 - full width is the point


def test_unspaced_text_gives_characters_and_pairs() -> None:
    """Pairs stand in for words, without a dictionary; function words part the run."""
    assert words("妹妹的猫") == ["妹", "妹", "妹妹", "猫"]


def test_a_pair_never_reaches_over_a_function_word() -> None:
    """What stood on both sides of it does not belong together."""
    assert "妹猫" not in words("妹妹的猫")


def test_scripts_are_told_apart_within_one_word() -> None:
    """`iPhone手机` is a word and a pair."""
    assert words("iPhone手机") == ["iphone", "手", "机", "手机"]


@given(st.text(max_size=300))
def test_words_are_plain(text: str) -> None:
    """No word has a space, a quote, a capital or a sign in it, and none is long: the index relies on it."""
    for word in words(text):
        assert word.split() == [word]
        assert not set(word) & set("\"'*^:()-")
        assert word.isascii() <= word.isalnum()
        assert word == word.lower() or not word.isascii()
        assert 1 <= len(word) <= 64


@given(st.text(max_size=100))
def test_composed_and_decomposed_text_have_the_same_words(text: str) -> None:
    """How a client's keyboard writes an accent makes no difference."""
    composed = unicodedata.normalize("NFC", text)

    assert words(composed) == words(unicodedata.normalize("NFD", text))


@given(st.text(alphabet="妹猫你的书hi ", max_size=60))
def test_unspaced_words_are_characters_or_pairs(text: str) -> None:
    """So the index stays small, whatever is written without a space."""
    assert {len(word) for word in words(text) if is_unspaced(word)} <= {1, 2}
