"""Windows that a replica has seen: how they go on, and when they go."""

from history.conversation import Conversation, ConversationKey, Memory, Turn
from history.known_windows import Known, KnownWindows, Version


def turns(start: int, stop: int) -> tuple[Turn, ...]:
    return tuple(Turn(messages=(b"%d" % at,), digests=bytes(16)) for at in range(start, stop))


def known(cut: int, stop: int) -> Known:
    conversation = Conversation(turn_count=stop, cut=cut)
    return Known().with_newer(Version(b"1.a"), conversation, turns(cut, stop), start=cut)


def test_only_what_is_new_has_to_be_told() -> None:
    """Turns that were added, with the cut where it was and with one that moved."""
    before = known(2, 6)
    grown = before.with_newer(Version(b"2.b"), Conversation(turn_count=8, cut=2), turns(6, 8), start=6)
    moved = before.with_newer(Version(b"2.b"), Conversation(turn_count=8, cut=5), turns(6, 8), start=6)
    left = before.with_newer(Version(b"2.b"), Conversation(turn_count=9, cut=7), turns(7, 9), start=7)

    assert (turns(2, 8), turns(5, 8), turns(7, 9)) == (grown.turns, moved.turns, left.turns)
    assert grown.size == known(2, 8).size


def test_a_window_that_was_replaced_is_told_anew() -> None:
    """Wherever it begins."""
    before = known(4, 8)
    back = before.with_newer(Version(b"2.b"), Conversation(turn_count=5, cut=1), turns(1, 5), start=1)
    there = before.with_newer(Version(b"2.b"), Conversation(turn_count=5, cut=4), turns(4, 5), start=4)
    empty = before.with_newer(Version(b"2.b"), Conversation(turn_count=4, cut=4), (), start=4)

    assert (turns(1, 5), turns(4, 5), ()) == (back.turns, there.turns, empty.turns)


def test_windows_are_bounded_in_bytes_and_in_time() -> None:
    """What was used longest ago goes first, and what nobody used for long goes anyway."""
    now, one = 0.0, known(0, 3)
    windows = KnownWindows(max_bytes=one.size * 3, idle_s=10.0, clock=lambda: now)
    keys = [ConversationKey("t", str(number)) for number in range(5)]
    for key in keys[:3]:
        windows.put(key, one)
    windows.put(keys[0], one)
    windows.put(keys[3], one)
    assert [windows.get(key) is one for key in keys] == [True, False, True, True, False]

    now = 11.0
    windows.put(keys[4], one)
    assert (len(windows), windows.bytes) == (1, one.size)

    now = 22.0
    windows.prune()
    assert (len(windows), windows.bytes) == (0, 0)
    windows.put(keys[4], one)

    windows.drop(keys[4])
    assert (len(windows), windows.bytes) == (0, 0)


def test_all_that_is_kept_counts() -> None:
    """Not the turns alone: a persona may be as long."""
    bare = known(0, 3)
    memory = Memory(covers_to=1, version=1, summary="s" * 500)
    full = Conversation(turn_count=3, persona=b"p" * 5_000, metadata=b"m" * 700, memories=(memory,))
    assert bare.with_newer(Version(b"2.b"), full, (), start=3).size > bare.size + 6_200


def test_ids_of_one_tenant_open_no_window_of_another() -> None:
    """They may be the same."""
    windows = KnownWindows(max_bytes=100_000, idle_s=10.0, clock=lambda: 0.0)
    windows.put(ConversationKey("a", "c"), known(0, 3))
    assert windows.get(ConversationKey("b", "c")) == Known()


def test_without_room_nothing_is_known() -> None:
    """A bound of nothing switches it off."""
    windows = KnownWindows(max_bytes=0, idle_s=10.0, clock=lambda: 0.0)
    windows.put(ConversationKey("t", "c"), known(0, 3))
    assert (len(windows), windows.bytes) == (0, 0)
