"""`friendo serve`: one gateway, by a configuration file or by options alone."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(  # noqa: PLR0913, PLR0917 - each is an option of the command
    config: Annotated[
        Path | None,
        typer.Option(help="The configuration file.", show_default="config/$RUNTIME_ENV.yaml"),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(metavar="ENGINE=URL", help="A node: vllm, sglang or openai; repeatable."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model that every --node serves; repeatable.")
    ] = None,
    redis: Annotated[
        str | None, typer.Option(metavar="URL|embedded|memory", help="Where dialogues are kept.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port of the API.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="The port of the control plane.")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Ask for no API keys.")] = False,  # noqa: FBT002 - a flag
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any other setting; repeatable."),
    ] = None,
) -> None:
    """Run one gateway until it is told to stop.

    With --node, no file is needed: whatever no option says has its default.
    """
    import msgspec
    import uvloop

    from gateway.app import Listening
    from gateway.app import serve as run_gateway
    from gateway.cli.serve_settings import Options, resolve
    from gateway.errors import GatewayError
    from gateway.logs import configure_logs

    def announce(listening: Listening) -> None:
        ready = {"ready": True, "url": listening.url, "admin_url": listening.admin_url}
        print(msgspec.json.encode(ready).decode(), flush=True)

    configure_logs()
    options = Options(
        config=config,
        nodes=tuple(node or ()),
        models=tuple(model or ()),
        redis=redis,
        port=port,
        admin_port=admin_port,
        no_auth=no_auth,
        overrides=tuple(overrides or ()),
    )
    try:
        with resolve(options, os.environ) as settings:
            uvloop.run(run_gateway(settings, os.environ, announce))
    except GatewayError as error:
        print(f"friendo serve: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
