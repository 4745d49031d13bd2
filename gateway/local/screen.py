"""What `friendo up` shows: a line per part while they load, then addresses and examples, then what happens.

On a terminal the loading lines are drawn in place and coloured; elsewhere every change is a plain line, so
that a log of it can be read. Examples are printed without a frame, because they are there to be copied.
"""

import time

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gateway.local import welcome

BAR_WIDTH = 24


class Screen:
    """One run's display. `loading` and `loaded` say how far each part is; `say` reports events."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )
        self._states: dict[str, str] = {}
        self._begun: dict[str, float] = {}

    def open(self, parts: tuple[str, ...]) -> None:
        """Begin to show how these parts load."""
        self._states = dict.fromkeys(parts, "waiting")
        if self._live is not None:
            self._live.start()
            self._live.update(self._progress(), refresh=True)

    def loading(self, name: str) -> None:
        """The part is being started."""
        self._begun[name] = time.monotonic()
        self._change(name, "loading")

    def loaded(self, name: str) -> None:
        """The part is ready."""
        self._change(name, f"ready in {time.monotonic() - self._begun[name]:.1f} s")

    def close(self) -> None:
        """End the loading display; events go on as plain lines."""
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """One thing that happened, on one line."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def welcome(self, *, addresses: dict[str, str], url: str) -> None:
        """What is running and how to try it."""
        table = Table.grid(padding=(0, 2))
        for name, address in addresses.items():
            table.add_row(Text(name, style="bold"), Text(address))
        if self._console.is_terminal:
            self._console.print(Panel(table, title="Friendo is running", expand=False))
        else:
            self.say("Friendo is running")
            for name, address in addresses.items():
                self.say(f"  {name:<10} {address}")
        self._example("Try it from the shell:", welcome.curl_example(url))
        self._example("Or with the OpenAI SDK, in Python:", welcome.sdk_example(url))
        self.say("Ctrl-C stops everything. What was said is kept.")

    def _example(self, title: str, text: str) -> None:
        self._console.print(Text(f"\n{title}\n", style="bold"))
        self._console.print(Text(text, style="cyan"), soft_wrap=True)

    def _change(self, name: str, state: str) -> None:
        self._states[name] = state
        if self._live is None:
            self.say(f"{name:<10} {state}")
        else:
            self._live.update(self._progress(), refresh=True)

    def _progress(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, state in self._states.items():
            style = "green" if state.startswith("ready") else "yellow" if state == "loading" else "dim"
            table.add_row(Text(name, style="bold"), Text(state, style=style))
        ready = sum(state.startswith("ready") for state in self._states.values())
        bar = ProgressBar(total=len(self._states), completed=ready, width=BAR_WIDTH)
        table.add_row(Text("all", style="bold"), bar)
        return table
