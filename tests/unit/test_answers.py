"""docs/answers.md shows what its data says: drawn again, nothing changes."""

import pytest

from bench.evidence.__main__ import ANSWERS, FIGURES, drawn, known
from bench.evidence.parts import PARTS
from bench.evidence.pictures import PICTURES
from bench.evidence.tables import TABLES


def test_every_table_and_picture_is_what_its_data_says() -> None:
    stale = [path.name for path, text in drawn(known()).items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `python -m bench.evidence --draw`"


def test_every_part_has_its_table_in_the_document() -> None:
    text = ANSWERS.read_text(encoding="utf-8")
    assert set(TABLES) == set(PARTS)
    assert [name for name in TABLES if f"<!-- table: {name} -->" not in text] == []
    assert {path.stem for path in FIGURES.glob("*.json")} <= set(PARTS)
    assert {part for part, _ in PICTURES.values()} <= set(PARTS)


@pytest.mark.parametrize("part", list(PARTS))
def test_no_result_names_a_place_of_the_machine_that_made_it(part: str) -> None:
    path = FIGURES / f"{part}.json"
    assert not path.exists() or not any(word in path.read_text() for word in ("/root", "/home", "/tmp"))
