"""`friendo rollout`: how versions of a model reach users, by the control plane of a running gateway."""

import getpass
import os
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.admin_call import Admin, asked, plain, reported

rollout = typer.Typer(help="Versions of a model: list, start, approve, widen, back.", no_args_is_help=True)

_Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="What clients ask for as the model.")]
_Why = Annotated[str, typer.Option(help="Kept in the history.", show_default=False)]
_NAME = "friendo rollout"


@rollout.command("list")
def list_all(admin: Admin = None) -> None:
    """Show every alias: what stands for it, and what is on its way. Fields are separated by tabs."""
    with reported(_NAME):
        found = asked(admin, "GET", "/rollouts")["data"]
    for one in found:
        print("\t".join(map(plain, (one["alias"], one["state"], one["current"]["name"], _trial(one)))))


@rollout.command()
def show(alias: _Alias, admin: Admin = None) -> None:
    """Show one alias: its versions, which node has which and why not, and every decision with its reason."""
    with reported(_NAME):
        told = asked(admin, "GET", _path(alias))
    _print(told)
    for decision in told["history"]:
        fields = (
            _time(decision["at"]),
            decision["version"],
            decision["what"],
            decision["by"],
            decision["why"],
        )
        print("\t".join(map(plain, fields)))


@rollout.command()
def start(  # noqa: PLR0913, PLR0917 - each is an option of the command
    alias: _Alias,
    version: Annotated[str, typer.Argument(help="Nodes serve it as ALIAS--VERSION.")],
    path: Annotated[str, typer.Argument(help="Where the adapter lies on the nodes' own disks.")] = "",
    model: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--model", help="A whole model: nodes are restarted with it, one by one.")
    ] = False,
    base: Annotated[str, typer.Option(help="The model that it is of.", show_default="what nodes serve")] = "",
    base_model: Annotated[str, typer.Option(help="What adapter_config.json calls that model.")] = "",
    local_path: Annotated[str, typer.Option(help="Where the gateway finds it, if not at PATH.")] = "",
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Without a look at it.")] = False,  # noqa: FBT002
    approved: Annotated[bool, typer.Option("--approved", help="Somebody said yes already.")] = False,  # noqa: FBT002
    step: Annotated[
        list[float] | None,
        typer.Option(help="A share from 0 to 1; repeatable, rising.", show_default="rollout.steps"),
    ] = None,
    why: _Why = "",
    admin: Admin = None,
) -> None:
    """Begin to roll a version out. It waits for `approve` unless --approved."""
    order = {
        "alias": alias,
        "version": version,
        "path": path,
        "kind": "model" if model else "adapter",
        "base": base,
        "base_model": base_model,
        "local_path": local_path,
        "unchecked": unchecked,
        "approved": approved,
        "steps": step or [],
    }
    with reported(_NAME):
        _print(asked(admin, "POST", "/rollouts", {**order, **_reason(why)}))


@rollout.command()
def approve(alias: _Alias, why: _Why = "", admin: Admin = None) -> None:
    """Say yes: it is loaded on one node, asked one thing, and gets its first share."""
    _do("approve", alias, why, admin)


@rollout.command()
def widen(alias: _Alias, why: _Why = "", admin: Admin = None) -> None:
    """Go on to the next share; behind the last one it is everybody's."""
    _do("widen", alias, why, admin)


@rollout.command()
def back(alias: _Alias, why: _Why = "", admin: Admin = None) -> None:
    """Return to the version before, which is still loaded."""
    _do("back", alias, why, admin)


@rollout.command()
def report(
    alias: _Alias,
    trial: Annotated[int | None, typer.Option(help="An earlier one.", show_default="the last")] = None,
    admin: Admin = None,
) -> None:
    """Compare the versions during a trial: a line for each figure, a column for each version."""
    with reported(_NAME):
        query = f"?trial={trial}" if trial is not None else ""
        told = asked(admin, "GET", f"{_path(alias)}/report{query}")
    names = list(told["versions"])
    print("\t".join(map(plain, ("", *names))))
    for figure in next(iter(told["versions"].values()), {}):
        cells = (told["versions"][name][figure] for name in names)
        print("\t".join((figure, *("" if cell is None else f"{cell}" for cell in cells))))
    print(plain(f"{told['verdict']['action'] or 'nothing to decide'}: {told['verdict']['why']}"))


def _do(what: str, alias: str, why: str, admin: str | None) -> None:
    with reported(_NAME):
        _print(asked(admin, "POST", f"{_path(alias)}/{what}", _reason(why)))


def _print(told: Mapping[str, Any]) -> None:
    print(plain(f"{told['alias']}: {told['state']}; {told['current']['name']} is there. {_trial(told)}"))
    for node in told["nodes"]:
        has = ", ".join(node["versions"]) or "none of them"
        problem = f"; {node['problem']}" if node["problem"] else ""
        print(plain(f"  {node['id']}: {has}{problem}"))


def _trial(told: Mapping[str, Any]) -> str:
    trial = told["trial"]
    if trial is None:
        return ""
    return f"{trial['version']['name']} has {told['share']:.3g} of what begins"


def _reason(why: str) -> dict[str, str]:
    try:
        return {"by": os.environ.get("FRIENDO_ACTOR") or getpass.getuser(), "why": why}
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return {"by": "", "why": why}


def _path(alias: str) -> str:
    return f"/rollouts/{quote(alias, safe='/')}"


def _time(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
