"""`friendo conversations import`: every file is read twice, first to name its wrong lines, then to write what
it says.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from gateway.cli.conversation_store import Opened, opened
from gateway.errors import BadOption
from history import export_lines, import_lines, import_sillytavern
from history.import_card import MAX_CARD_BYTES, Card, CardUnreadable, events, read_card
from history.import_events import Event, Line, Start, Wrong, grouped
from history.importing import Importer, Wanted

_MAX_LINE = 64 * 1024 * 1024
_NAMED = 20
"""How many wrong lines are named; the rest is counted."""


Fields = dict[str, Any]
Parse = Callable[[Iterable[Line]], Iterator[Event]]


class Order(msgspec.Struct, frozen=True):
    """What the command was asked for."""

    files: tuple[Path, ...]
    tenant: str
    user: str
    character: str
    id: str
    card: Path | None
    user_name: str
    skip_wrong: bool


class Checked(msgspec.Struct, frozen=True):
    """What the first reading of a file has shown."""

    wrong: tuple[Wrong, ...]
    """The first of them."""
    wrong_count: int
    dialogues: int
    digest: bytes


async def imported(redis: str | None, order: Order) -> bool:
    """Import everything; whether nothing was wrong. Raises `BadOption`, and what writing raises."""
    card = _card(order)
    readings = [(path, _checked(path)) for path in order.files]
    is_whole = all(_told(path, checked) for path, checked in readings)
    if order.id and sum(checked.dialogues for _, checked in readings) > 1:
        raise BadOption("--id is for one dialogue, and there are more of them in these files")
    if not is_whole and not order.skip_wrong:
        print("Nothing was imported. Mend the lines, or leave them out with --skip-wrong.", file=sys.stderr)
        return False
    async with opened(redis) as place:
        if card is not None and not order.files:
            await _write(place, order, "card", lambda: events(card), _Bar(0))
        for path, checked in readings:
            with _Bar(path.stat().st_size) as bar:
                await _write(place, order, path.name, _parser(path, checked, bar.moved), bar, card)
    return is_whole


def parsed(lines: Iterable[Line], seed: Callable[[], bytes]) -> Iterator[Event]:
    """What the lines say, by the format of the first one. `seed`: for a dialogue that has no name."""
    rest = iter(lines)
    first = next(rest, None)
    if first is None:
        return iter(())
    whole = _with(first, rest)
    try:
        fields = msgspec.json.decode(first[1], type=Fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return iter([Wrong(first[0], f"it is no JSON object: {error}")])
    for fits, events_of in _formats(seed):
        if fits(fields):
            return events_of(whole)
    return iter([Wrong(first[0], "this is no format of dialogues that can be imported")])


def _formats(seed: Callable[[], bytes]) -> tuple[tuple[Callable[[Fields], bool], Parse], ...]:
    return (
        (export_lines.is_head, export_lines.events),
        (import_sillytavern.is_head, import_sillytavern.events),
        (import_lines.is_dialogue, import_lines.dialogues),
        (import_lines.is_item, lambda lines: import_lines.items(lines, seed)),
    )


def numbered(path: Path, on_bytes: Callable[[int], None]) -> Iterator[Line]:
    """The lines of a file that are not empty. One that is endless is cut off, and so a wrong one."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            on_bytes(len(line))
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line


def _with(first: Line, rest: Iterator[Line]) -> Iterator[Line]:
    yield first
    yield from rest


def _checked(path: Path) -> Checked:
    """Read a file to its end, writing nothing."""
    digest = hashlib.sha256()

    def lines() -> Iterator[Line]:
        for number, line in numbered(path, lambda _: None):
            digest.update(line)
            yield number, line

    wrong: list[Wrong] = []
    wrong_count = dialogues = 0
    for event in grouped(parsed(lines(), lambda: b"")):
        dialogues += isinstance(event, Start)
        if isinstance(event, Wrong):
            wrong_count += 1
            if len(wrong) < _NAMED:
                wrong.append(event)
    return Checked(tuple(wrong), wrong_count, dialogues, digest.digest())


def _told(path: Path, checked: Checked) -> bool:
    """Name the wrong lines; whether there are none."""
    for one in checked.wrong:
        print(f"{path}:{one.line}: {one.reason}", file=sys.stderr)
    if checked.wrong_count > len(checked.wrong):
        print(f"{path}: {checked.wrong_count - len(checked.wrong)} more lines are wrong", file=sys.stderr)
    return checked.wrong_count == 0


def _parser(path: Path, checked: Checked, on_bytes: Callable[[int], None]) -> Callable[[], Iterable[Event]]:
    return lambda: parsed(numbered(path, on_bytes), lambda: checked.digest)


def _card(order: Order) -> Card | None:
    if order.card is None:
        return None
    with order.card.open("rb") as file:
        data = file.read(MAX_CARD_BYTES + 1)
    try:
        return read_card(data, user_name=order.user_name)
    except CardUnreadable as error:
        raise BadOption(f"--card {order.card}: {error}") from error


async def _write(
    place: Opened,
    order: Order,
    name: str,
    parser: Callable[[], Iterable[Event]],
    bar: "_Bar",
    card: Card | None = None,
) -> None:
    wanted = Wanted(
        tenant=order.tenant,
        user=order.user,
        character=order.character or (card.persona.digest.hex() if card else ""),
        id=order.id,
        persona=card.persona.json if card else b"",
    )
    turns = known = 0
    async for one in Importer(place.editor, place.store, wanted).run(parser()):
        turns, known = turns + one.added, known + one.known
        bar.said(f"{turns} turns")
        print(one.id)
    print(f"{name}: {turns} turns were imported, {known} were there already", file=sys.stderr)


class _Bar:
    """How far a file has been read, on a terminal."""

    def __init__(self, size: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), DownloadColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._progress = Progress(
            *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
        )
        self._task = self._progress.add_task("", total=size)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def moved(self, count: int) -> None:
        """So many bytes more."""
        self._progress.advance(self._task, count)

    def said(self, text: str) -> None:
        """What has come of it so far."""
        self._progress.update(self._task, description=text)
