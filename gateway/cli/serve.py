"""`friendo serve`: one gateway, by a configuration file or by options alone."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gateway.cli.serve_settings import Options

_Config = Annotated[
    Path | None, typer.Option(help="The configuration file.", show_default="config/$RUNTIME_ENV.yaml")
]
_Nodes = Annotated[
    list[str] | None,
    typer.Option("--node", metavar="ENGINE=URL", help="A node: vllm, sglang or openai; repeatable."),
]
_Models = Annotated[
    list[str] | None, typer.Option("--model", help="A model that every --node serves; repeatable.")
]
_Redis = Annotated[str | None, typer.Option(metavar="URL|embedded|memory", help="Where dialogues are kept.")]
_Port = Annotated[int | None, typer.Option(help="The port of the API.")]
_AdminPort = Annotated[int | None, typer.Option(help="The port of the control plane.")]
_NoAuth = Annotated[bool, typer.Option("--no-auth", help="Ask for no API keys.")]
_Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any other setting; repeatable."),
]


def serve(  # noqa: PLR0913, PLR0917 - each is an option of the command
    config: _Config = None,
    nodes: _Nodes = None,
    models: _Models = None,
    redis: _Redis = None,
    port: _Port = None,
    admin_port: _AdminPort = None,
    no_auth: _NoAuth = False,  # noqa: FBT002 - a flag
    overrides: _Overrides = None,
) -> None:
    """Run one gateway until it is told to stop.

    With --node, no file is needed: whatever no option says has its default.
    """
    from gateway.cli.serve_settings import Options

    _run(
        Options(
            config=config,
            nodes=tuple(nodes or ()),
            models=tuple(models or ()),
            redis=redis,
            port=port,
            admin_port=admin_port,
            no_auth=no_auth,
            overrides=tuple(overrides or ()),
        )
    )


def _run(options: "Options") -> None:
    import msgspec
    import uvloop

    from gateway.app import Listening
    from gateway.app import serve as run_gateway
    from gateway.cli.serve_settings import resolve
    from gateway.errors import GatewayError
    from gateway.logs import configure_logs

    def announce(listening: Listening) -> None:
        ready = {"ready": True, "url": listening.url, "admin_url": listening.admin_url}
        print(msgspec.json.encode(ready).decode(), flush=True)

    configure_logs()
    try:
        with resolve(options, os.environ) as settings:
            uvloop.run(run_gateway(settings, os.environ, announce))
    except GatewayError as error:
        print(f"friendo serve: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
