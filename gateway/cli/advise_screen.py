"""What `friendo advise` shows on a terminal: how far it is, beside; the answer, on standard output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gateway.advise.question import Findings
from gateway.advise.reasons import caveats, reasons
from gateway.advise.rows import facts, heads, rows
from gateway.advise.words import Words
from history.likelihood import Curve

_WIDE = 100
_FOR_WIDE_SCREENS = (3, 6)
"""Columns: the mean prompt, and the formula's cost."""


class Bar:
    """A progress bar on standard error; where that is no terminal, a line for each stretch of work."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, visible=False, said="")

    def begins(self, what: str, total: int) -> None:
        """A stretch of work; 0: nobody knows how much."""
        if self._progress.disable:
            print(f"{what} …", file=sys.stderr)
        self._progress.reset(self._task, total=total or None, description=what, visible=True, said="")

    def reached(self, done: int, said: str = "") -> None:
        """So much of it is done."""
        self._progress.update(self._task, completed=done, said=said)


@contextmanager
def bar() -> Iterator[Bar]:
    """A bar for as long as the block lasts."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    is_silent = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=is_silent, transient=True) as progress:
        yield Bar(progress)


def show(found: Findings, words: Words) -> None:
    """The answer, in English."""
    console = Console(highlight=False)
    advice = found.advice
    console.print(f"[b]{found.source}[/b], seed {found.seed}\n")
    console.print(_facts(found, words))
    console.print()
    console.print(_windows(found, words, console.width))
    for curve in found.quality:
        console.print()
        console.print(_curve(curve))
    console.print(
        f"\n[b]min_turns {advice.min_turns}, max_turns {advice.max_turns}, "
        f"summary of {advice.summary_tokens} tokens[/b] (compaction.max_tokens)\n"
    )
    for one in (*reasons(found, words), *caveats(found, words)):
        console.print(f"- {one.english}", markup=False)


def _facts(found: Findings, words: Words) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts(found, words):
        table.add_row(name.english, value)
    return table


def _windows(found: Findings, words: Words, width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    named = heads(found, words)
    shown = [at for at in range(len(named)) if width >= _WIDE or at not in _FOR_WIDE_SCREENS]
    for at in shown:
        name = named[at].english.replace(" ", "\n")  # a word to a line: many columns on few characters
        table.add_column(name, justify="left" if at == 0 else "right", no_wrap=True, vertical="bottom")
    for row in rows(found, words):
        cells = (f"{row.name.english}{' *' if row.is_current else ''}", *row.cells)
        table.add_row(*(cells[at] for at in shown), style="bold" if row.is_advised else "")
    table.caption = "bold: advised; *: in force"
    table.caption_justify = "left"
    return table


def _curve(curve: Curve) -> Table:
    title = f"{curve.character or 'all characters'}: nats a token, {curve.replies} replies"
    table = Table(box=None, padding=(0, 1), header_style="dim", title=title, title_justify="left")
    for head in ("N", "mean", "behind the best", "95 % from", "to"):
        table.add_column(head, justify="right")
    for one in curve.points:
        figures = (one.mean, one.behind, one.behind_low, one.behind_high)
        cells = (f"{one.turns}", *(f"{figure:.4f}" for figure in figures))
        table.add_row(*cells, style="bold" if one.turns == curve.knee else "")
    table.caption = f"bold: the knee, 95 % interval {curve.knee_low} to {curve.knee_high}"
    table.caption_justify = "left"
    return table
