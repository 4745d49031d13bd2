"""Where the store lives, as one URL, and how much of it must know a turn before the turn counts as stored.

    redis://[user[:password]@]host[:port][/database]              one server
    redis+cluster://[…@]host[:port],host[:port],…                 a cluster, by some of its nodes
    redis+sentinel://[…@]host[:port],…[/database]?master=NAME     a master, by the sentinels that watch it
    unix:///path/of/the/socket[?db=database]                      one server on this machine

`rediss` instead of `redis` means TLS, everywhere: `?ssl_ca_certs=FILE`, `ssl_certfile`, `ssl_keyfile`,
`ssl_check_hostname`, `ssl_cert_reqs`. User and password are the servers'; sentinels that ask for their own
are told `?sentinel_username=…&sentinel_password=…`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

Kind = Literal["server", "cluster", "sentinel"]
Address = tuple[str, int]

_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs")
_SENTINEL_OPTIONS = ("master", "sentinel_username", "sentinel_password")
_PORTS: Mapping[Kind, int] = {"server": 6379, "cluster": 6379, "sentinel": 26379}
_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_FORM = "expected redis://HOST:PORT/DATABASE, redis+cluster://HOST:PORT,…, redis+sentinel://HOST:PORT,…"
_ESCAPES = "in a user or password, write / ? # @ : and % as %2F %3F %23 %40 %3A and %25"


class Durability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must be true before a turn counts as stored."""

    wait_replicas: int = 0
    """So many replicas must have it; 0: the master alone."""
    wait_s: float = 1.0
    """How long they may take. Then the turn counts as not stored, although it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPlace:
    """A URL taken apart. Never shows a password."""

    kind: Kind = "server"
    addresses: tuple[Address, ...] = ()
    socket: str = ""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: Mapping[str, str | bool] | None = None
    """redis-py's options by their names, or None without TLS."""
    master: str = ""
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)


def parse_place(url: str, *, password: str = "") -> RedisPlace:
    """The place that a URL means; `password` replaces the one in it and may hold any character.

    Raises `ValueError`, whose text says what to write and repeats nothing of the URL.
    """
    parts = _split(url)
    scheme, _, kind_text = parts.scheme.partition("+")
    kind = _kind(scheme, kind_text)
    options = _options(parts, kind, tls=scheme == "rediss")
    user_info, _, hosts = parts.netloc.rpartition("@")
    username, _, url_password = user_info.partition(":")
    on_socket = scheme == "unix"
    if on_socket and not parts.path.strip("/"):
        raise ValueError("expected unix:///path/of/the/socket")
    if kind == "sentinel" and not options.get("master"):
        raise ValueError("sentinels watch several masters: add ?master=NAME, as in their configuration")
    tls = {name: _tls_value(name, options[name]) for name in _TLS_OPTIONS if name in options}
    return RedisPlace(
        kind=kind,
        addresses=() if on_socket else tuple(_addresses(hosts, kind)),
        socket=unquote(parts.path) if on_socket else "",
        database=_database(("" if on_socket else parts.path.strip("/")) or options.get("db", ""), kind),
        username=unquote(username),
        password=password or unquote(url_password),
        tls=tls if scheme == "rediss" else None,
        master=options.get("master", ""),
        sentinel_username=options.get("sentinel_username", ""),
        sentinel_password=options.get("sentinel_password", ""),
    )


def _split(url: str) -> SplitResult:
    if not url.isprintable() or " " in url:  # urlsplit drops tabs and line breaks without a word
        raise ValueError(f"{_FORM}, without blanks and line breaks")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(_FORM) from None
    if parts.fragment:
        raise ValueError(f"{_FORM}; {_ESCAPES}")
    return parts


def _kind(scheme: str, kind: str) -> Kind:
    if scheme in ("redis", "rediss"):
        match kind:
            case "":
                return "server"
            case "cluster" | "sentinel":
                return kind
    if scheme == "unix" and not kind:
        return "server"
    raise ValueError(f"{_FORM}, with rediss for TLS, or unix:///path/of/the/socket")


def _options(parts: SplitResult, kind: Kind, *, tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {
        *(_TLS_OPTIONS if tls else ()),
        *(_SENTINEL_OPTIONS if kind == "sentinel" else ()),
        "db",
    }
    if options.keys() - known:
        names = ", ".join(sorted(known))
        raise ValueError(f"an unknown option follows the ?; known for this address: {names}; {_ESCAPES}")
    return options


def _addresses(hosts: str, kind: Kind) -> Iterator[Address]:
    texts = hosts.split(",")
    if kind == "server" and len(texts) > 1:
        raise ValueError("several hosts need redis+cluster:// or redis+sentinel://")
    for text in texts:
        try:
            one = urlsplit(f"//{text}")
            host, port = one.hostname, one.port
            (host or "").encode("idna")  # as the resolver does
        except ValueError:
            host, port = None, None
        if not host or port == 0:
            raise ValueError(f"expected HOST:PORT, several of them with commas between; {_ESCAPES}")
        yield host, port or _PORTS[kind]


def _database(text: str, kind: Kind) -> int:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError(f"the database is a number; {_ESCAPES}")
    if int(text or 0) and kind == "cluster":
        raise ValueError("a cluster has no databases: leave out the number after the /")
    return int(text or 0)


def _tls_value(name: str, text: str) -> str | bool:
    if name == "ssl_check_hostname":
        if text.lower() not in _SWITCHES:
            raise ValueError(f"{name} is true or false")
        return _SWITCHES[text.lower()]
    if name == "ssl_cert_reqs" and text not in ("required", "optional", "none"):
        raise ValueError(f"{name} is required, optional or none")
    if not text:
        raise ValueError(f"{name} needs a value")
    return text
