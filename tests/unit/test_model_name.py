"""The name of the model in an answer is the one that was asked for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes.model_name import AS_IT_IS, splice_for

SAID = 'I am "model":"base:a", said the cat.'


def answer(name: str | None, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "model": name, "choices": [{"message": {"content": SAID}}], **more}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("ascii_only", [True, False])
@given(st.text(min_size=1), st.text(min_size=1))
def test_only_the_name_is_changed(
    ascii_only: bool, separators: tuple[str, str], told: str, asked: str
) -> None:
    """However it is written, and whatever the model says."""
    if any(0xD800 <= ord(sign) < 0xE000 for sign in told + asked):
        return
    body = json.dumps(answer(told), ensure_ascii=ascii_only, separators=separators).encode()

    spliced = splice_for(body, asked).of(body)
    assert answer(asked) == json.loads(spliced)
    if told == asked:
        assert spliced == body


def test_the_name_of_something_else_in_the_answer_stays() -> None:
    """What counts is the answer's own field."""
    body = json.dumps({"draft": {"model": "small"}, **answer("base:a")}, separators=(",", ":")).encode()

    assert {"draft": {"model": "small"}, **answer("a")} == json.loads(splice_for(body, "a").of(body))


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b'{"model":7}', b'{"choices":[]}', b'{"model":null}', b"\xff", b'{"model']
)
def test_what_has_no_name_is_passed_on(body: bytes) -> None:
    """It is not this module's to refuse."""
    assert AS_IT_IS == splice_for(body, "a")
