"""The logs of the one-machine stack stay small."""

from pathlib import Path

from gateway.local.bounded_log import BoundedLog


def test_two_files_of_the_limit_are_all_there_ever_is(tmp_path: Path) -> None:
    """A part that prints without end cannot fill the disk."""
    log = BoundedLog(tmp_path / "part.log", limit=100)
    for number in range(200):
        log.write(f"line {number:03}\n".encode())
    log.close()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.log", "part.log.1"]
    assert all(path.stat().st_size <= 100 + 9 for path in tmp_path.iterdir())
    assert log.last_line() == "line 199"


def test_a_log_is_continued_after_a_restart(tmp_path: Path) -> None:
    """What a part said before it died is still there when it is back."""
    for text in (b"before\n", b"after\n"):
        log = BoundedLog(tmp_path / "part.log")
        log.write(text)
        log.close()

    assert (tmp_path / "part.log").read_text() == "before\nafter\n"


def test_the_last_line_skips_blank_ones(tmp_path: Path) -> None:
    """The reason for an end is the last thing that was said."""
    log = BoundedLog(tmp_path / "part.log")
    log.write(b"first\nthe reason\n\n  \n")

    assert log.last_line() == "the reason"
    log.close()
