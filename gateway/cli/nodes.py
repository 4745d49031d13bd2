"""`friendo nodes`: the nodes of running gateways, by the control plane of one of them."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from rich.table import Table

nodes = typer.Typer(help="Nodes: list, add, drain, remove.", no_args_is_help=True)

KEY_VARIABLE = "FRIENDO_ADMIN_KEY"
_ANSWER_WITHIN_S = 30.0
_COLUMNS = ("id", "state", "engine", "version", "models", "running", "kv", "origin")
_Admin = Annotated[
    str | None,
    typer.Option(
        "--admin", metavar="URL", help="A gateway's control plane.", show_default="server.admin_port, here"
    ),
]
_Name = Annotated[str, typer.Argument(metavar="ID", help="As `friendo nodes list` shows it.")]


@nodes.command("list")
def show(admin: _Admin = None) -> None:
    """Show every node, what is wrong with it, and what its settings lack.

    On a terminal as a table; elsewhere a line for each node, its fields separated by tabs, the id first.
    """
    with _reported():
        found = _asked(admin, "GET", "")["data"]
    rows = [_fields(node) for node in found]
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_as_table(rows))
    else:
        for row in rows:
            print("\t".join(" ".join(field.split()) for field in row))
    for node in found:
        for note in (*filter(None, [node["problem"]]), *node["notes"]):
            print(_plain(f"{node['id']}: {note}"), file=sys.stderr)


@nodes.command()
def add(  # noqa: PLR0913, PLR0917 - each is an option of the command
    engine: Annotated[str, typer.Argument(help="vllm, sglang or openai.")],
    url: Annotated[str, typer.Argument(help="Like http://10.0.0.1:8000")],
    name: Annotated[str, typer.Option("--id", help="Its name.", show_default="host and port")] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="What it serves; repeatable.", show_default="what it says")
    ] = None,
    weight: Annotated[float, typer.Option(help="Its share, relative to the others.")] = 1.0,
    max_running: Annotated[int, typer.Option(help="Requests at once; 0: no cap.")] = 0,
    rank: Annotated[int | None, typer.Option(help="One data-parallel rank of that server.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable with the node's key.")
    ] = None,
    admin: _Admin = None,
) -> None:
    """Add a node, for good and on every replica. It gets requests once it is healthy."""
    with _reported():
        spec: dict[str, Any] = {
            "engine": engine,
            "url": url,
            "id": name,
            "models": model or [],
            "weight": weight,
            "max_running": max_running,
            "rank": rank,
            "api_key": _from_environment(api_key_env),
        }
        node = _asked(admin, "POST", "", spec)
    print(node["id"])
    state = "it is healthy" if node["healthy"] else f"it is not healthy yet: {node['problem'] or 'not asked'}"
    print(_plain(f"Node {node['id']} is added; {state}."), file=sys.stderr)


@nodes.command()
def drain(
    name: _Name,
    within: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Break off what still runs then.", show_default="never"),
    ] = None,
    admin: _Admin = None,
) -> None:
    """Send a node no new requests, on every replica; its conversations are warmed elsewhere."""
    with _reported():
        node = _asked(admin, "POST", f"/{_quoted(name)}/drain", {"within_s": within})
    print(f"Node {name} drains; {node['running']} requests of that gateway still run on it.")


@nodes.command()
def undrain(name: _Name, admin: _Admin = None) -> None:
    """Send a node requests again."""
    with _reported():
        _asked(admin, "POST", f"/{_quoted(name)}/undrain")
    print(f"Node {name} gets requests again.")


@nodes.command()
def remove(name: _Name, admin: _Admin = None) -> None:
    """Drain a node that was added, and forget it, within two seconds on every replica."""
    with _reported():
        _asked(admin, "DELETE", f"/{_quoted(name)}")
    print(f"Node {name} is removed; what runs on it may end.")


@nodes.command()
def load(
    name: _Name,
    adapter: Annotated[str, typer.Argument(help="What requests will call it.")],
    path: Annotated[str, typer.Argument(help="Where it lies on the node's own disk.")],
    admin: _Admin = None,
) -> None:
    """Load a LoRA adapter on a node that runs. Every version needs a name and a path of its own."""
    with _reported():
        _asked(admin, "POST", f"/{_quoted(name)}/adapters", {"name": adapter, "path": path})
    print(f"Node {name} serves {adapter}.")


@nodes.command()
def unload(
    name: _Name, adapter: Annotated[str, typer.Argument(help="Its name.")], admin: _Admin = None
) -> None:
    """Unload a LoRA adapter; requests for it go to other nodes that have it."""
    with _reported():
        _asked(admin, "DELETE", f"/{_quoted(name)}/adapters/{_quoted(adapter)}")
    print(f"Node {name} serves {adapter} no longer.")


def _asked(admin: str | None, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """What the control plane answers. Raises `BadOption` with its words where it refuses."""
    import httpx

    from gateway.errors import BadOption

    base = (admin or _from_settings()).rstrip("/")
    key = os.environ.get(KEY_VARIABLE, "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(
            method,
            f"{base}/admin/nodes{path}",
            json=body,
            headers=headers,
            timeout=_ANSWER_WITHIN_S,
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadOption(f"no gateway answers at {base} ({error}); name one with --admin") from error
    try:
        told = answer.json()
        refusal = told["error"]["message"] if answer.status_code != 200 else ""
    except (ValueError, KeyError, TypeError) as error:
        raise BadOption(f"{base} is no gateway's control plane: it answered {answer.status_code}") from error
    if answer.status_code == 401:
        raise BadOption(f"{refusal} Its text is taken from {KEY_VARIABLE}, and needs the scope admin.")
    if refusal:
        raise BadOption(refusal)
    return told


def _from_settings() -> str:
    from gateway.cli.settings_file import read_settings

    server = read_settings(None, os.environ).server
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.admin_host, server.admin_host)  # noqa: S104
    return f"http://{host}:{server.admin_port}"


def _from_environment(name: str | None) -> str:
    from gateway.errors import BadOption

    if name is None:
        return ""
    if name not in os.environ:
        raise BadOption(f"--api-key-env: there is no environment variable {name}")
    return os.environ[name]


def _fields(node: Mapping[str, Any]) -> tuple[str, ...]:
    usage = "" if node["kv_usage"] is None else f"{node['kv_usage']:.0%}"
    fields = (
        node["id"],
        _state(node),
        node["product"] or node["engine"],
        node["version"],
        " ".join(node["models"]),
        str(node["running"]),
        usage,
        node["origin"] or "",
    )
    return tuple(map(_plain, fields))


def _state(node: Mapping[str, Any]) -> str:
    if node["removing"]:
        return "leaving"
    state = "healthy" if node["healthy"] else "away"
    return f"{state}, drains" if node["draining"] else state


def _as_table(rows: Sequence[Sequence[str]]) -> "Table":
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(*(Column(name, overflow="fold") for name in _COLUMNS))
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _plain(text: str) -> str:
    """The text without what a terminal would take as an order: some of it is in a node's words."""
    return "".join(character if character.isprintable() else " " for character in text)


@contextmanager
def _reported() -> Iterator[None]:
    """What goes wrong on purpose is told in its own words, without a traceback."""
    from gateway.errors import GatewayError

    try:
        yield
    except GatewayError as error:
        print(f"friendo nodes: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
