"""The archive's mark: a copy of old turns is known to be stale."""

import hypothesis.strategies as st
from hypothesis import given

from history.conversation import PastMark
from history.store_rules import marked

# What a commit does: how many turns it keeps, how many it appends, where it leaves the cut (each as a share).
commits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(1, 4), st.floats(0, 1), st.booleans()), min_size=1, max_size=40
)


@given(commits)
def test_copies_with_the_same_number_are_true_before_the_cut(
    steps: list[tuple[float, int, float, bool]],
) -> None:
    """Wherever branches leave and the cut goes, no copy under the current number holds a replaced turn."""
    turns: list[int] = []
    cut, said, mark = 0, 0, PastMark()
    copies: list[tuple[int, list[int]]] = []
    for share, appended, forward, is_branch in steps:
        keep = int(share * len(turns)) if is_branch else len(turns)
        turns = turns[:keep] + list(range(said, said + appended))
        said += appended
        low = 0 if is_branch else cut
        high = keep if is_branch else len(turns)
        cut = low + int(forward * (high - low))
        mark = marked(mark, keep=keep, cut=cut)
        copies.append((mark.number, turns[:cut]))
        for number, copy in copies:
            if number == mark.number:
                shown = min(cut, len(copy))
                assert turns[:shown] == copy[:shown]


def test_a_branch_inside_the_window_keeps_the_number() -> None:
    """Regenerating the last answer costs no index."""
    assert marked(PastMark(number=2, reach=42), keep=60, cut=42) == PastMark(number=2, reach=42)


def test_a_branch_behind_the_reach_changes_it_even_where_the_cut_is_further_back() -> None:
    """The cut moved back to show older turns; a copy may still reach as far as the cut once did."""
    back = marked(PastMark(number=2, reach=42), keep=45, cut=25)

    assert back == PastMark(number=2, reach=42)
    assert marked(back, keep=30, cut=10) == PastMark(number=3, reach=10)
