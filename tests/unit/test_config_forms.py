"""What a value has to look like beyond its type, and that nothing fits which would fail later."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import ConnectionPool

from gateway.config_file import forms
from gateway.config_file.shape import all_paths
from gateway.nodes.connection import NodePool, Patience
from gateway.nodes.discovery import NodeSource
from gateway.nodes.roster import Roster
from gateway.routing.node import NodeSpec
from gateway.settings import FORMS, Settings

# Texts that are nearly addresses: the interesting ones are made of the same pieces as the good ones.
_SCHEMES = st.sampled_from(["http", "https", "redis", "rediss", "unix", "://", "//"])
_MARKS = st.sampled_from([":", "/", "@", "?", "#", "[", "]", ".", "\t", "\n", " ", "\udcff"])
_WORDS = st.sampled_from(
    ["a", "é", "10.0.0.1", "::1", "8000", "0", "99999", "-1", "v1", "db=", "ssl_cert_reqs="]
)
_ADDRESSES = st.lists(_SCHEMES | _MARKS | _WORDS, max_size=8).map("".join) | st.text(max_size=20)


@given(_ADDRESSES)
@example("http://a..b:1")
@example("http://.a")
@example("http://[::1]:8000/base")
def test_what_fits_as_a_nodes_address_can_be_asked(url: str) -> None:
    """The pool takes it, and so does the resolver, whose refusal would be no OSError."""
    if not forms.node_address(url):
        pool = NodePool(url, Patience())
        pool._host.encode("idna")
        assert pool.host_header.decode().isprintable()


@given(_ADDRESSES)
@example("redis://h/0?db=x")
@example("redis://h?ssl_cert_reqs=none")
@example("rediss://u:p@h:1/2?ssl_cert_reqs=none")
@example("unix:///run/redis.sock?db=1")
def test_what_fits_as_a_redis_address_makes_a_connection(url: str) -> None:
    """As redis-py reads it, options and all, down to the object that would be connected."""
    if not forms.redis_address(url):
        pool = ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:8000", "https://node.example/base/", "http://[::1]:30000", "http://localhost"]
)
def test_a_nodes_usual_addresses_fit(url: str) -> None:
    """With and without a port, a path and TLS."""
    assert forms.node_address(url) == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("notaurl", "like http://10.0.0.1:8000"),
        ("10.0.0.1:8000", "like http://10.0.0.1:8000"),
        ("http://h:99999", "like http://10.0.0.1:8000"),
        ("http://me:secret@h", "api_key"),
        ("http://h/?a=b", "without ? and #"),
        ("http://h:8000/v1/", "without /v1"),
    ],
)
def test_a_wrong_address_is_told_how_to_be_written(url: str, says: str) -> None:
    """And its password is not repeated."""
    told = forms.node_address(url)

    assert says in told
    assert "secret" not in told


@pytest.mark.parametrize(
    "url", ["wat", "redis://", "redis://h:0", "redis://h:99999", "redis://h/first", "redis://h?timeout=1"]
)
def test_what_redis_would_ignore_or_choke_on_does_not_fit(url: str) -> None:
    """A database that is no number is one that nobody meant."""
    assert forms.redis_address(url).startswith("expected redis://HOST:PORT/DATABASE")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1, 11])
def test_no_number_beyond_its_bounds_fits(number: float) -> None:
    """Infinity and NaN are beyond all bounds."""
    assert forms.between(0, 10)(number) == "expected a number from 0 to 10"


@pytest.mark.parametrize("text", ["a\r\nx-evil: 1", "schlüssel"])
def test_a_nodes_key_can_stand_in_a_header(text: str) -> None:
    """It can begin no other header."""
    assert forms.header_text(text) == "expected printable ASCII"
    assert forms.header_text("sk-abc") == forms.header_text("") == ""


def test_two_nodes_of_one_name_are_refused_as_the_roster_would() -> None:
    """Nodes without an id are called by host and port, here and there."""
    twice = [{"engine": "vllm", "url": "http://h:1"}, {"engine": "openai", "url": "http://h:1/base"}]

    assert "two nodes are called h:1" in forms.distinct_nodes(twice)
    with pytest.raises(ValueError, match="two nodes are called 'h:1'"):
        Roster(msgspec.convert(twice, list[NodeSpec]), Patience())
    assert forms.distinct_nodes([{**twice[0], "id": "a"}, twice[1]]) == ""


def test_ranks_behind_one_address_are_nodes_of_their_own() -> None:
    """Each is called by its rank; the same one twice is refused here and there."""
    ranks = [{"engine": "vllm", "url": "http://h:1", "rank": rank} for rank in (0, 1)]
    specs = msgspec.convert(ranks, list[NodeSpec])

    assert forms.distinct_nodes(ranks) == ""
    assert ["h:1-rank0", "h:1-rank1"] == [spec.name for spec in specs]
    assert "two nodes are called h:1-rank1" in forms.distinct_nodes([*ranks, ranks[1]])


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254",
        "http://[fe80::1]:80",
        "http://[::ffff:169.254.1.1]/",
        "http://[fe80::1%25eth0]",
    ],
)
def test_a_link_local_address_is_no_nodes(url: str) -> None:
    """Metadata services live there; a node's key would go to them."""
    assert "link-local addresses" in forms.node_address(url)


@pytest.mark.parametrize("rank", [-1, 4096])
def test_a_rank_is_a_small_number_or_none(rank: int) -> None:
    """It goes into a header and into a port."""
    assert forms.data_parallel_rank(rank) == "expected a rank from 0 to 4095"
    assert forms.data_parallel_rank(None) == forms.data_parallel_rank(7) == ""


def test_every_form_belongs_to_a_setting_whose_default_fits() -> None:
    """A path that is misspelt would check nothing; defaults are not checked when they are loaded."""
    settings = msgspec.to_builtins(Settings())
    known = {*all_paths(Settings), *(f"nodes[].{field}" for field in NodeSpec.__struct_fields__)}
    known |= {f"discovery[].{field}" for field in NodeSource.__struct_fields__}
    defaults = {path: value for path in FORMS if (value := _at(settings, path.split("."))) is not None}

    assert FORMS.keys() <= known
    assert dict.fromkeys(defaults, "") == {path: FORMS[path](value) for path, value in defaults.items()}
    assert {path for path in FORMS if "[]" not in path} == set(defaults)


def _at(tree: object, names: Iterable[str]) -> object:
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
