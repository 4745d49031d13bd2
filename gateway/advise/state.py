"""What an interrupted `friendo advise` goes on with: what was heard and what was replayed, in one file.

The file holds lengths, times, hashes and characters' names, no words. It is written beside itself and
renamed, so that one that is cut off half-way does not exist.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import xxhash

from gateway.advise.needles.probe import Needle
from gateway.errors import BadOption
from history.likelihood import Scored
from history.replay import Outcome
from history.sketch import Sketch

_VERSION = 1
_APART_S = 20.0


class _Kept(msgspec.Struct):
    version: int
    question: str
    sketches: list[Sketch] = []
    places: set[int] = set()
    measured: int = 0
    wrong: int = 0
    is_heard: bool = False
    outcomes: dict[str, Outcome] = {}
    needles: list[Needle] = []
    probed: int = 0
    scored: dict[str, list[Scored]] = {}


class State:
    """What is known so far. Without a path it is only kept in memory."""

    def __init__(self, path: Path | None, question: str) -> None:
        """`question` tells what was asked of which source. Raises `BadOption` for a file of another one."""
        self._path = path
        self._saved = time.monotonic()
        self._kept = _Kept(_VERSION, f"{xxhash.xxh3_64_intdigest(question.encode()):016x}")
        if path is None or not path.exists():
            return
        try:
            found = msgspec.msgpack.decode(path.read_bytes(), type=_Kept)
        except msgspec.DecodeError as error:
            raise BadOption(f"--state {path}: this is no state of friendo advise ({error})") from error
        if (found.version, found.question) != (_VERSION, self._kept.question):
            raise BadOption(
                f"--state {path} belongs to another source or tokenizer: name another file, or delete it"
            )
        self._kept = found

    @property
    def sketches(self) -> list[Sketch]:
        """The dialogues that were heard."""
        return self._kept.sketches

    @property
    def places(self) -> set[int]:
        """Where in the source they were."""
        return self._kept.places

    @property
    def measured(self) -> int:
        """Turns whose tokens an engine had told."""
        return self._kept.measured

    @property
    def wrong(self) -> int:
        """Lines that could not be read."""
        return self._kept.wrong

    @wrong.setter
    def wrong(self, count: int) -> None:
        self._kept.wrong = count

    @property
    def is_heard(self) -> bool:
        """Whether all of the source was heard."""
        return self._kept.is_heard

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """What was replayed, by its window and circumstances."""
        return self._kept.outcomes

    @property
    def needles(self) -> list[Needle]:
        """What became of the needles in the source's own dialogues."""
        return self._kept.needles

    @property
    def probed(self) -> int:
        """How many dialogues had needles."""
        return self._kept.probed

    def scored(self, model: str) -> list[Scored]:
        """Replies whose likelihood this model told."""
        return self._kept.scored.get(model, [])

    def has_scored(self, model: str, one: Scored) -> None:
        """One reply more."""
        self._kept.scored.setdefault(model, []).append(one)
        self._save_now_and_then()

    def heard(self, sketch: Sketch, place: int, measured: int, needles: Sequence[Needle] = ()) -> None:
        """One dialogue more, and the needles that were planted into it."""
        self._kept.sketches.append(sketch)
        self._kept.needles += needles
        self._kept.probed += bool(needles)
        self._kept.places.add(place)
        self._kept.measured += measured
        self._save_now_and_then()

    def all_heard(self) -> None:
        """The source has no more."""
        self._kept.is_heard = True
        self.save()

    def replayed(self, name: str, outcome: Outcome) -> None:
        """One window more."""
        self._kept.outcomes[name] = outcome
        self._save_now_and_then()

    def save(self) -> None:
        """Write it down, if it has a place."""
        if self._path is None:
            return
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        beside.write_bytes(msgspec.msgpack.encode(self._kept))
        beside.replace(self._path)
        self._saved = time.monotonic()

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved > _APART_S:
            self.save()
