"""Asking the control plane of a running gateway, for commands."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

KEY_VARIABLE = "FRIENDO_ADMIN_KEY"
_ANSWER_WITHIN_S = 150.0
"""Longer than loading an adapter may take."""

Admin = Annotated[
    str | None,
    typer.Option(
        "--admin", metavar="URL", help="A gateway's control plane.", show_default="server.admin_port, here"
    ),
]


def asked(admin: str | None, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """What the control plane answers under `/admin`. Raises `BadOption` with its words where it refuses."""
    import httpx

    from gateway.errors import BadOption

    address = (admin or _from_settings()).rstrip("/")
    key = os.environ.get(KEY_VARIABLE, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(
            method,
            f"{address}/admin{path}",
            json=body,
            headers=headers,
            timeout=_ANSWER_WITHIN_S,
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadOption(f"no gateway answers at {address} ({error}); name one with --admin") from error
    try:
        told = answer.json()
        refusal = told["error"]["message"] if answer.status_code != 200 else ""
    except (ValueError, KeyError, TypeError) as error:
        raise BadOption(
            f"{address} is no gateway's control plane: it answered {answer.status_code}"
        ) from error
    if answer.status_code == 401:
        raise BadOption(f"{refusal} Its text is taken from {KEY_VARIABLE}, and needs the scope admin.")
    if refusal:
        raise BadOption(refusal)
    return told


def plain(text: str) -> str:
    """The text without what a terminal would take as an order: some of it is in a node's words."""
    return "".join(character if character.isprintable() else " " for character in str(text))


@contextmanager
def reported(command: str) -> Iterator[None]:
    """What goes wrong on purpose is told in its own words, without a traceback."""
    from gateway.errors import GatewayError

    try:
        yield
    except GatewayError as error:
        print(f"{command}: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def _from_settings() -> str:
    from gateway.cli.settings_file import read_settings

    server = read_settings(None, os.environ).server
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.admin_host, server.admin_host)  # noqa: S104
    return f"http://{host}:{server.admin_port}"
