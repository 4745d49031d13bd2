"""`friendo nodes`: the nodes of running gateways, by the control plane of one of them."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.admin_call import Admin, asked, plain, reported

if TYPE_CHECKING:
    from rich.table import Table

nodes = typer.Typer(help="Nodes: list, add, drain, remove.", no_args_is_help=True)

_COMMAND = "friendo nodes"
_COLUMNS = ("id", "state", "engine", "version", "models", "running", "kv", "origin")
_Name = Annotated[str, typer.Argument(metavar="ID", help="As `friendo nodes list` shows it.")]


@nodes.command("list")
def show(admin: Admin = None) -> None:
    """Show every node, what is wrong with it, and what its settings lack.

    On a terminal as a table; elsewhere a line for each node, its fields separated by tabs, the id first.
    """
    with reported(_COMMAND):
        found = asked(admin, "GET", "/nodes")["data"]
    rows = [_fields(node) for node in found]
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_as_table(rows))
    else:
        for row in rows:
            print("\t".join(" ".join(field.split()) for field in row))
    for node in found:
        for note in (*filter(None, [node["problem"]]), *node["notes"]):
            print(plain(f"{node['id']}: {note}"), file=sys.stderr)


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
    admin: Admin = None,
) -> None:
    """Add a node, for good and on every replica. It gets requests once it is healthy."""
    with reported(_COMMAND):
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
        node = asked(admin, "POST", "/nodes", spec)
    print(node["id"])
    state = "it is healthy" if node["healthy"] else f"it is not healthy yet: {node['problem'] or 'not asked'}"
    print(plain(f"Node {node['id']} is added; {state}."), file=sys.stderr)


@nodes.command()
def drain(
    name: _Name,
    within: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Break off what still runs then.", show_default="never"),
    ] = None,
    admin: Admin = None,
) -> None:
    """Send a node no new requests, on every replica; its conversations are warmed elsewhere."""
    with reported(_COMMAND):
        node = asked(admin, "POST", f"/nodes/{_quoted(name)}/drain", {"within_s": within})
    print(f"Node {name} drains; {node['running']} requests of that gateway still run on it.")


@nodes.command()
def undrain(name: _Name, admin: Admin = None) -> None:
    """Send a node requests again."""
    with reported(_COMMAND):
        asked(admin, "POST", f"/nodes/{_quoted(name)}/undrain")
    print(f"Node {name} gets requests again.")


@nodes.command()
def remove(name: _Name, admin: Admin = None) -> None:
    """Drain a node that was added, and forget it, within two seconds on every replica."""
    with reported(_COMMAND):
        asked(admin, "DELETE", f"/nodes/{_quoted(name)}")
    print(f"Node {name} is removed; what runs on it may end.")


@nodes.command()
def load(
    name: _Name,
    adapter: Annotated[str, typer.Argument(help="What requests will call it.")],
    path: Annotated[str, typer.Argument(help="Where it lies on the node's own disk.")],
    admin: Admin = None,
) -> None:
    """Load a LoRA adapter on a node that runs. Every version needs a name and a path of its own."""
    with reported(_COMMAND):
        asked(admin, "POST", f"/nodes/{_quoted(name)}/adapters", {"name": adapter, "path": path})
    print(f"Node {name} serves {adapter}.")


@nodes.command()
def unload(
    name: _Name, adapter: Annotated[str, typer.Argument(help="Its name.")], admin: Admin = None
) -> None:
    """Unload a LoRA adapter; requests for it go to other nodes that have it."""
    with reported(_COMMAND):
        asked(admin, "DELETE", f"/nodes/{_quoted(name)}/adapters/{_quoted(adapter)}")
    print(f"Node {name} serves {adapter} no longer.")


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
    return tuple(map(plain, fields))


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
