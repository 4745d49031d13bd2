"""Stems: what makes `sisters` find `sister`."""

import itertools
import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.stem import stem

NEEDLES = Path(__file__).parents[2] / "gateway" / "advise" / "needles"

ENDINGS = (
    *("", "s", "es", "ed", "eed", "ing", "er", "ly", "ness", "ful", "fully", "ation", "ational", "ization"),
    *("izer", "iveness", "able", "ible", "ement", "ment", "al", "ance", "ence", "y", "ies", "ity", "ive"),
    *("ous", "ously", "logy", "bility", "ion", "sion", "tion", "ism", "ize", "e", "ee", "ll", "ell", "ated"),
    *("icate", "alize"),
)
BEGINNINGS = (
    *("sister", "happ", "relat", "condit", "hop", "hopp", "fil", "fall", "adjust", "sens", "act", "electr"),
    *("d", "tr", "oper", "gener", "possib", "snow", "box", "play", "roll", "probat", "control", "ceas", "a"),
    *("troubl", "feel"),
)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sisters", "sister"),
        ("ponies", "poni"),
        ("agreed", "agre"),
        ("hopping", "hop"),
        ("filing", "file"),
        ("happiness", "happi"),
        ("relational", "relat"),
        ("adoption", "adopt"),
        ("is", "is"),
        ("caf\u00e9s", "caf\u00e9s"),
        ("\u59b9\u59b9", "\u59b9\u59b9"),
        ("topic7s", "topic7s"),
    ],
)
def test_endings_go_where_enough_is_left(word: str, expected: str) -> None:
    """Short words, other letters and digits stay as they are."""
    assert stem(word) == expected


def test_an_implementation_of_somebody_else_agrees() -> None:
    """SQLite's full-text search has the same algorithm; on made up words and on those of the benches."""
    said = (NEEDLES / "en.yaml").read_text().lower()
    made = [begin + end for begin, end in itertools.product(BEGINNINGS, ENDINGS)]
    made += sorted(set(re.findall("[a-z]+", said)))
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE said USING fts5(body, tokenize='porter ascii')")
    database.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(said, instance)")
    database.execute("INSERT INTO said VALUES (?)", (" ".join(made),))
    theirs = dict(database.execute("SELECT offset, term FROM terms"))
    database.close()

    assert [theirs[at] for at in range(len(made))] == [stem(word) for word in made]


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", max_size=20))
def test_a_stem_begins_like_its_word(word: str) -> None:
    """But for its last letters, of which two may be others."""
    assert word.startswith(stem(word)[:-2])
    assert len(stem(word)) <= len(word) + 1
