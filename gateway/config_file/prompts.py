"""The gateway's own instructions to models, one text file per language, for operators to change."""

from pathlib import Path

from gateway.errors import BadOption
from history.compaction import Instructions

_PLACES = ("{last}", "{words}")
_MAX_CHARS = 8000


def read_instructions(folder: Path) -> Instructions:
    """What asks for a conversation's memory. Raises `BadOption` naming the file that is not usable."""
    return Instructions(
        english=_text(folder / "compaction.en.txt"), chinese=_text(folder / "compaction.zh.txt")
    )


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} cannot be read: {error}") from error
    missing = [place for place in _PLACES if place not in text]
    if missing:
        raise BadOption(f"{path} has to say {' and '.join(missing)} somewhere")
    if len(text) > _MAX_CHARS:
        raise BadOption(f"{path} is longer than {_MAX_CHARS} characters; models would lose the thread")
    return text
