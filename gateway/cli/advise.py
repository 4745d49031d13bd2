"""`friendo advise`: which window fits this traffic, and why; a table, a page, a JSON file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.conversations import Redis, Tenant, reported

_File = Annotated[
    Path | None, typer.Option("--file", exists=True, dir_okay=False, help="Dialogues from a file instead.")
]
_Generate = Annotated[
    int | None,
    typer.Option("--generate", min=1, max=100_000, metavar="N", help="N made-up dialogues instead."),
]


def advise(  # noqa: PLR0913 - each is an option of the command
    *,
    file: _File = None,
    generate: _Generate = None,
    gap_median: Annotated[
        float, typer.Option(min=0.1, help="Of made-up dialogues: the pause, in s.")
    ] = 120.0,
    seed: Annotated[int, typer.Option(help="For what is drawn by chance.")] = 0,
    tenant: Tenant = "default",
    redis: Redis = None,
    node: Annotated[
        str | None, typer.Option(metavar="ENGINE=URL", help="Count tokens and measure prices there.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model on that node.")] = "",
    api_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="The variable that holds the node's API key.")
    ] = "",
    quality: Annotated[bool, typer.Option("--quality", help="Find min_turns by held-out replies.")] = False,
    quality_replies: Annotated[int, typer.Option(min=8, max=10_000, help="How many are held out.")] = 64,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Of the knee, in nats a token.")] = 0.01,
    min_turns: Annotated[int | None, typer.Option(min=1, max=1000, help="Instead of the configured.")] = None,
    most_turns: Annotated[int, typer.Option(min=1, max=2000, help="The longest window to try.")] = 160,
    r0: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="A cached token's price.")] = None,
    p_cold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="The share of turns that come too late.")
    ] = None,
    retention: Annotated[float, typer.Option(min=1.0, help="Seconds that KV is kept untouched.")] = 600.0,
    cache_tokens: Annotated[int, typer.Option(min=0, help="KV tokens that all share; 0: no limit.")] = 0,
    summary_tokens: Annotated[
        int | None, typer.Option(min=0, max=100_000, help="A summary's length; 0: no summaries.")
    ] = None,
    output_price: Annotated[float, typer.Option(min=0.0, help="An output token against an input one.")] = 5.0,
    block: Annotated[int | None, typer.Option(min=1, max=8192, help="Tokens per cache block.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=5_000_000, help="How many turns are read.")] = 200_000,
    state: Annotated[Path | None, typer.Option(dir_okay=False, help="Go on after Ctrl-C with this.")] = None,
    html: Annotated[Path, typer.Option(dir_okay=False, help="The page.")] = Path("friendo-advice.html"),
    json: Annotated[Path | None, typer.Option("--json", dir_okay=False, help="All figures.")] = None,
) -> None:
    """Say which window fits this traffic, and why: min_turns, max_turns and the length of a summary.

    Reads the conversations of the store, replays them under every window with the gateway's own code, sets
    the formula beside it, and writes a page with plots. Nothing is changed.
    """
    import asyncio

    from gateway.cli.advise_run import Options, Outputs, answered

    options = Options(
        file=file,
        generate=generate,
        gap_median=gap_median,
        seed=seed,
        tenant=tenant,
        redis=redis,
        node=node,
        model=model,
        api_key_env=api_key_env,
        quality=quality,
        quality_replies=quality_replies,
        tolerance=tolerance,
        min_turns=min_turns,
        most_turns=most_turns,
        r0=r0,
        p_cold=p_cold,
        retention_s=retention,
        cache_tokens=cache_tokens,
        summary_tokens=summary_tokens,
        output_price=output_price,
        block=block,
        limit=limit,
        state=state,
    )
    try:
        with reported():
            asyncio.run(answered(options, Outputs(html=html, json=json)))
    except KeyboardInterrupt:
        kept = f"; the same command goes on from {state}" if state else "; with --state it could go on"
        print(f"Interrupted{kept}.", file=sys.stderr)
        raise typer.Exit(130) from None
