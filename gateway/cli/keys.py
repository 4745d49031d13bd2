"""`friendo keys`: make, show and revoke API keys in the store that the gateways read.

A key's text goes to standard output alone, so that a script can take it; everything else goes beside it.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from gateway.keys.key import Key, Scope
    from gateway.keys.ports import KeyStore
    from gateway.settings import Settings
    from history.redis_place import Durability, RedisPlace

T = TypeVar("T")
keys = typer.Typer(help="API keys: make, show and revoke them.", no_args_is_help=True)

_COLUMNS = ("id", "tenant", "name", "scopes", "models", "created", "expires", "state")
_ANSWER_WITHIN_S = 5.0
_SPAN = re.compile(r"([1-9][0-9]{0,5})([hdw])")
_SPAN_S = {"h": 3600, "d": 86400, "w": 7 * 86400}
_Redis = Annotated[
    str | None, typer.Option("--redis", metavar="URL", help="The gateways' Redis.", show_default="store.url")
]


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose data the key opens: letters, digits, _ . and -.")],
    name: Annotated[str, typer.Option(help="What the key is for, as shown in the list.")],
    scope: Annotated[list[str] | None, typer.Option(help="inference or admin; repeatable.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only these models; repeatable.")] = None,
    expires_in: Annotated[str | None, typer.Option(help="Like 12h, 90d or 52w.", metavar="SPAN")] = None,
    redis: _Redis = None,
) -> None:
    """Make a key and print it, once: it cannot be shown again."""
    import secrets

    from gateway.keys.key import ENTROPY_BYTES, Grant, mint
    from gateway.keys.pepper import PEPPER_VARIABLE, read_pepper

    with _reported():
        configured = "" if PEPPER_VARIABLE in os.environ else _settings().auth.pepper
        pepper = read_pepper(os.environ, configured=configured)
        now = time.time()
        grant = Grant(
            tenant=tenant,
            name=name,
            scopes=_scopes(scope),
            models=frozenset(model or ()),
            expires_at=None if expires_in is None else now + _seconds(expires_in),
        )
        text, key = mint(grant, entropy=secrets.token_bytes(ENTROPY_BYTES), pepper=pepper, now=now)
        _in_store(redis, lambda store: store.create(key))
    print(f"Key {key.id} for tenant {tenant}. Keep it now, it is not shown again:", file=sys.stderr)
    print(text)


@keys.command("list")
def show(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's keys.")] = None,
    redis: _Redis = None,
) -> None:
    """Show every key's id, owner, reach and state; never the key itself.

    On a terminal as a table; elsewhere a line for each key, its fields separated by tabs, the id first.
    """
    with _reported():
        table = _in_store(redis, lambda store: store.table())
    found = [key for key in table.keys if tenant is None or key.grant.tenant == tenant]
    rows = [_fields(key, now=time.time()) for key in sorted(found, key=_owner_and_age)]
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_as_table(rows))
    else:
        for row in rows:
            print("\t".join(" ".join(field.split()) for field in row))
    for key_id in table.unreadable:
        print(f"{key_id}: a newer version wrote this key; it opens nothing here", file=sys.stderr)


@keys.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="The key's id, as `friendo keys list` shows it.")
    ],
    *,
    forget: Annotated[bool, typer.Option("--forget", help="Delete its record as well.")] = False,
    redis: _Redis = None,
) -> None:
    """Make a key invalid, within two seconds on every running gateway."""
    with _reported():
        if forget:
            _in_store(redis, lambda store: store.forget(key_id))
        else:
            _in_store(redis, lambda store: store.revoke(key_id, now=time.time()))
    print(f"Key {key_id} is {'deleted' if forget else 'revoked'}; gateways refuse it within two seconds.")


def _as_table(rows: Sequence[Sequence[str]]) -> "Table":
    from rich.markup import escape
    from rich.table import Column, Table

    # Whoever revokes a key needs the whole of its id; everything else may be folded.
    first, *others = _COLUMNS
    longest = max((len(row[0]) for row in rows), default=0)
    table = Table(
        Column(first, no_wrap=True, overflow="fold", min_width=longest),
        *(Column(name, overflow="fold") for name in others),
    )
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _fields(key: "Key", *, now: float) -> tuple[str, ...]:
    grant = key.grant
    return (
        key.id,
        grant.tenant,
        grant.name,
        " ".join(sorted(grant.scopes)),
        " ".join(sorted(grant.models)) or "all",
        _day(key.created_at),
        _day(grant.expires_at) if grant.expires_at is not None else "never",
        _state(key, now=now),
    )


def _owner_and_age(key: "Key") -> tuple[str, float]:
    return key.grant.tenant, key.created_at


def _state(key: "Key", *, now: float) -> str:
    from gateway.keys.key import is_live

    if is_live(key, now=now):
        return "active"
    return "expired" if key.revoked_at is None else f"revoked {_day(key.revoked_at)}"


def _day(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(unix_s))


def _scopes(wanted: Sequence[str] | None) -> frozenset["Scope"]:
    from gateway.errors import BadRequest
    from gateway.keys.key import SCOPES

    chosen = frozenset(scope for scope in SCOPES if scope in (wanted or ["inference"]))
    if unknown := set(wanted or ()).difference(SCOPES):
        raise BadRequest(f"there is no scope {', '.join(sorted(unknown))}; there are {', '.join(SCOPES)}")
    return chosen


def _seconds(span: str) -> float:
    from gateway.errors import BadRequest

    match = _SPAN.fullmatch(span)
    if match is None:
        raise BadRequest(f"{span!r} is no span of time; write it like 12h, 90d or 52w")
    return int(match.group(1)) * _SPAN_S[match.group(2)]


def _settings() -> "Settings":
    from gateway.cli.settings_file import read_settings

    return read_settings(None, os.environ)


def _in_store(url: str | None, use: Callable[["KeyStore"], Awaitable[T]]) -> T:
    """What `use` makes of the store at `url`, or at the settings' store."""
    from gateway.errors import BadOption
    from history.redis_place import Durability, parse_place

    try:
        durability = Durability() if url else _settings().store.durability
        place = parse_place(url) if url else _settings().store.place
    except ValueError as error:
        raise BadOption(f"keys live in Redis, give its address with --redis: {error}") from error
    return asyncio.run(_used(place, durability, use))


async def _used(
    place: "RedisPlace", durability: "Durability", use: Callable[["KeyStore"], Awaitable[T]]
) -> T:
    from gateway.keys.redis_keys import RedisKeys
    from history.redis_client import redis_client
    from history.redis_link import RedisLink

    async with redis_client(place, timeout_s=_ANSWER_WITHIN_S) as client:
        if not durability.wait_replicas:
            return await use(RedisKeys(client))
        # Waiting for replicas must not take the time that an answer has.
        within_s = _ANSWER_WITHIN_S + durability.wait_s
        link = RedisLink(place, size=1, timeout_s=within_s, durability=durability)
        try:
            return await use(RedisKeys(client, link=link))
        finally:
            await link.close()


@contextmanager
def _reported() -> Iterator[None]:
    """What goes wrong on purpose is told in its own words, without a traceback."""
    from gateway.errors import GatewayError

    try:
        yield
    except GatewayError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
