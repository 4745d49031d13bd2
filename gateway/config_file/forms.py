"""What a value has to look like beyond its type. A form says what it expects instead, or nothing: it fits.

The texts never repeat the value: the reader adds it, masked where it has to be.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from gateway.nodes.addresses import LINK_LOCAL, is_link_local
from history.redis_place import parse_place

Form = Callable[[Any], str]

_NODE = "expected a node's address like http://10.0.0.1:8000"
_REDIS = "expected redis://HOST:PORT/DATABASE (or rediss://, or unix:///SOCKET)"
_SERVICE = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_RECIPE = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DATABASE = re.compile("[0-9]{1,9}")
_TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)


def between(low: float, high: float) -> Form:
    """A number within these bounds, themselves included; neither infinity nor NaN ever is."""
    return lambda number: "" if low <= number <= high else f"expected a number from {low} to {high}"


def port(number: int) -> str:
    """A TCP port; 0 takes a free one."""
    return "" if 0 <= number <= 65535 else "expected a port from 0 (a free one) to 65535"


def host(name: str) -> str:
    """A name or an address that can be looked up. That it exists, only the network knows."""
    return "" if _is_host(name) else "expected a host's name or address like 127.0.0.1"


def dns_name(name: str) -> str:
    """A name whose addresses can be looked up."""
    return "" if not name or _is_host(name) else "expected a name like vllm.inference.svc.cluster.local"


def kubernetes_service(name: str) -> str:
    """A service by its namespace and name."""
    return "" if not name or _SERVICE.fullmatch(name) else "expected NAMESPACE/SERVICE like inference/vllm"


def node_address(url: str) -> str:
    """An HTTP address without anything that would be silently left out of the requests."""
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        return _NODE
    if "@" in parts.netloc:
        return f"{_NODE}, without a user or password (a node's key goes into its api_key)"
    if parts.query or parts.fragment:
        return f"{_NODE}, without ? and #"
    if parts.path.rstrip("/").endswith("/v1"):
        return f"{_NODE}, without /v1, which every request adds"
    return LINK_LOCAL if is_link_local(parts.hostname) else ""


def redis_address(url: str) -> str:
    """One server's address as redis-py reads it, without what it would ignore (a database that is no number).

    Of what may follow a `?`, only what says where and whom: timeouts are settings, and a name that redis-py
    does not know would fail at the first call.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in ("redis", "rediss", "unix"):
        return _REDIS
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {"db", *_TLS_OPTIONS} if parts.scheme == "rediss" else {"db"}
    if unknown := sorted(options.keys() - known):
        return f"{_REDIS}, without ?{unknown[0]}="
    path = parts.path.strip("/")
    databases = [options.get("db", "0")]
    has_place = bool(path)
    if parts.scheme != "unix":
        databases.append(path or "0")
        has_place = bool(parts.hostname) and parts.port != 0
    return "" if has_place and all(map(_DATABASE.fullmatch, databases)) else _REDIS


def store_address(url: str) -> str:
    """Where dialogues and keys may live: one server, a cluster, or a master behind sentinels."""
    try:
        parse_place(url)
    except ValueError as error:
        return str(error)
    return ""


def recipe_name(name: str) -> str:
    """What a job's recipe may be called."""
    return "" if _RECIPE.fullmatch(name) else "expected up to 64 of A-Z a-z 0-9 . _ - and a letter first"


def data_parallel_rank(rank: int | None) -> str:
    """One of the ranks behind an address, or none in particular."""
    return "" if rank is None or 0 <= rank < 4096 else "expected a rank from 0 to 4095"


def rising_shares(shares: Sequence[float]) -> str:
    """Shares above 0, each larger than the one before, up to 1."""
    rises = all(low < high for low, high in pairwise((0, *shares)))
    fits = rises and 1 <= len(shares) <= 16 and shares[-1] <= 1
    return "" if fits else "expected up to 16 shares above 0, rising, at most 1, like [0.05, 0.25, 1]"


def header_text(text: str) -> str:
    """What can stand in a request's header: a line break in it would begin another header."""
    return "" if text.isascii() and (text.isprintable() or not text) else "expected printable ASCII"


def distinct_nodes(nodes: list[dict[str, Any]]) -> str:
    """Nodes whose names differ; one without an id is called by its host and port."""
    seen: set[str] = set()
    for node in nodes:
        rank = "" if node.get("rank") is None else f"-rank{node['rank']}"
        name = str(node.get("id") or f"{urlsplit(str(node['url'])).netloc}{rank}")
        if name in seen:
            return f"two nodes are called {name}; leave one out, or give it an id of its own"
        seen.add(name)
    return ""


def _split(url: str) -> SplitResult | None:
    """The parts of an address whose host and port can be used; None for any other text."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # not a number, or beyond 65535
    except ValueError:
        return None
    # urlsplit drops tabs and line breaks without a word, and keeps blanks.
    is_one_word = url.isprintable() and " " not in url
    return parts if is_one_word and _is_host(parts.hostname or "") else None


def _is_host(name: str) -> bool:
    try:
        name.encode("idna")  # as the resolver does; fails on labels that are empty or too long
    except UnicodeError:
        return False
    return name.isprintable() and " " not in name
