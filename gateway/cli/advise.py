"""`friendo advise`: which window fits this traffic, and why; a table, a page, a JSON file."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.conversations import Redis, Tenant, reported

_File = Annotated[
    Path | None, typer.Option("--file", exists=True, dir_okay=False, help="Dialogues from a file instead.")
]
_Generate = Annotated[
    int | None, typer.Option(min=1, max=100_000, metavar="N", help="N made-up dialogues instead.")
]
_Seed = Annotated[int, typer.Option(help="For what is drawn by chance.")]
_Node = Annotated[
    str | None, typer.Option(metavar="ENGINE=URL", help="Count tokens and measure prices on this node.")
]
_Model = Annotated[str, typer.Option(help="The model on that node.")]
_KeyEnv = Annotated[str, typer.Option(metavar="NAME", help="The variable that holds the node's API key.")]
_Quality = Annotated[bool, typer.Option("--quality", help="Find min_turns by held-out replies on the node.")]
_MinTurns = Annotated[int | None, typer.Option(min=1, max=1000, help="Instead of the configured one.")]
_Limit = Annotated[int, typer.Option(min=1, max=5_000_000, help="How many turns are read at most.")]
_Assume = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Instead of what is measured or usual; may be repeated. r0, p_cold, retention_s, cache_tokens, "
        "summary_tokens, output_price, block, most_turns, quality_replies, tolerance; of made-up people "
        "gap_median, away_median.",
    ),
]
_State = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Keep what is done here, and go on with it after Ctrl-C.")
]
_Html = Annotated[Path, typer.Option(dir_okay=False, help="The page with the plots.")]
_Json = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="All figures.")]


def advise(  # noqa: PLR0913 - each is an option of the command
    *,
    file: _File = None,
    generate: _Generate = None,
    seed: _Seed = 0,
    tenant: Tenant = "default",
    redis: Redis = None,
    node: _Node = None,
    model: _Model = "",
    api_key_env: _KeyEnv = "",
    quality: _Quality = False,
    min_turns: _MinTurns = None,
    limit: _Limit = 200_000,
    assume: _Assume = None,
    state: _State = None,
    html: _Html = Path("friendo-advice.html"),
    json: _Json = None,
) -> None:
    """Say which window fits this traffic, and why; nothing is changed.

    The store's conversations are replayed under every window by the gateway's own code, beside a formula.
    """
    from gateway.cli.advise_run import Options, Outputs, answered

    given = (file, generate, seed, tenant, redis, node, model, api_key_env, quality, min_turns, limit)
    with _interruptible(state), reported():
        asyncio.run(answered(Options(*given, assume, state), Outputs(html=html, json=json)))


@contextmanager
def _interruptible(state: Path | None) -> Iterator[None]:
    """Ctrl-C ends it with a word on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        how = f"the same command goes on from {state}" if state else "with --state FILE it could go on"
        print(f"Interrupted; {how}.", file=sys.stderr)
        raise typer.Exit(130) from None
