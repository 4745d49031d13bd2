"""Token counts that an engine reports, and what is left of them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes.usage import Usage, most_prompt_tokens, read_usage

numbers = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
anything = st.recursive(
    numbers, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
)
reports = st.one_of(
    anything,
    st.fixed_dictionaries(
        {
            "prompt_tokens": anything,
            "completion_tokens": anything,
            "prompt_tokens_details": st.one_of(anything, st.fixed_dictionaries({"cached_tokens": anything})),
        }
    ),
)


@given(reports)
def test_whatever_is_reported_leaves_numbers_that_can_be(report: Any) -> None:
    """Never an error, never a count below nothing, never more from the cache than the prompt has."""
    read = read_usage(msgspec.json.encode(report))

    assert read.prompt_tokens >= 0 <= read.completion_tokens
    assert read.cached is None or 0 <= read.cached <= read.prompt_tokens
    for number in (read.prompt_tokens, read.completion_tokens):
        assert type(number) is int


@pytest.mark.parametrize(
    ("report", "left"),
    [
        (b"null", Usage()),
        (b'{"prompt_tokens":9,"completion_tokens":null}', Usage(9)),
        (b'{"prompt_tokens":9.0,"completion_tokens":2}', Usage(9, 2)),
        (b'{"prompt_tokens":9.5,"completion_tokens":2}', Usage(0, 2, is_odd=True)),
        (b'{"prompt_tokens":-1,"completion_tokens":2}', Usage(0, 2, is_odd=True)),
        (b'{"prompt_tokens":true}', Usage(is_odd=True)),
        (b'{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":10}}', Usage(9, is_odd=True)),
        (b'{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":8}}', Usage(9, cached=8)),
        (b'{"prompt_tokens":1e999}', Usage(is_odd=True)),
        (b"[7]", Usage(is_odd=True)),
    ],
)
def test_each_count_stands_for_itself(report: bytes, left: Usage) -> None:
    """One that is wrong does not take the others with it."""
    assert left == read_usage(report)


def test_what_is_more_than_possible_is_left_out() -> None:
    """A prompt's count takes what came from the cache with it: that is a share of it."""
    told = Usage(prompt_tokens=10**12, completion_tokens=5, cached=10**11)

    assert Usage(is_odd=True) == told.within(8192, 8192)
    assert Usage(7, 0, 3, is_odd=True) == Usage(7, 10**12, 3).within(8192, 8192)
    assert Usage(7, 5, 3) == Usage(7, 5, 3).within(8192, 8192)


def test_a_prompt_has_no_more_tokens_than_context_or_bytes() -> None:
    """Where the context is unknown; but nobody knows how many tokens a picture is."""
    assert most_prompt_tokens(b"x" * 1000, 8192) == 8192
    assert 1000 < most_prompt_tokens(b"x" * 1000, None) < 10_000
    assert most_prompt_tokens(b'{"type":"image_url"}', None) > 1_000_000
