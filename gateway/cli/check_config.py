"""`friendo check-config`: what would be in force, or everything that is wrong with it."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def check_config(
    file: Annotated[
        Path | None,
        typer.Argument(help="The configuration file.", show_default="config/$RUNTIME_ENV.yaml"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="As for `serve`; repeatable."),
    ] = None,
) -> None:
    """Print the effective settings with their secrets masked, or every mistake in them."""
    import yaml

    from gateway.cli.settings_file import read_settings
    from gateway.config_file import ConfigNotFound, InvalidConfig, config_path, masked

    try:
        path = file or config_path(os.environ)
        settings = read_settings(path, os.environ, overrides or ())
    except (ConfigNotFound, InvalidConfig) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"# {path}, with the environment and the command line laid over it")
    print(yaml.safe_dump(masked(settings), sort_keys=False, allow_unicode=True), end="")
