"""`friendo up`: everything on one machine."""

import os
from pathlib import Path
from typing import Annotated

import typer


def up(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Where everything is kept.", show_default="~/.local/share/friendo", file_okay=False
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="The OpenAI API.", min=1, max=65535)] = 7860,
    admin_port: Annotated[int, typer.Option(help="Metrics and administration.", min=1, max=65535)] = 7861,
) -> None:
    """Run everything here: a store, two CPU nodes with a real model, the gateway, the training worker."""
    from gateway.local.stack import Options, run

    folder = (data or default_folder()).expanduser().absolute()
    raise typer.Exit(run(Options(data=folder, port=port, admin_port=admin_port)))


def default_folder() -> Path:
    """`friendo` in the user's data folder, as the XDG rules name it."""
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "friendo"
