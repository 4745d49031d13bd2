"""The options of `friendo serve`: a wrong one is named as it was typed, before anything is opened."""

import pytest

from gateway.cli.serve_settings import Options, resolve
from gateway.config_file import InvalidConfig
from gateway.errors import BadOption
from gateway.routing.node import NodeSpec

NODE = "vllm=http://127.0.0.1:1"


def refusal(options: Options) -> str:
    """Why these options make no settings."""
    with pytest.raises(BadOption) as refused, resolve(options, {}):
        pass
    return str(refused.value)


def test_options_alone_make_settings() -> None:
    """With a node no file is needed; every other option lands where it belongs."""
    options = Options(nodes=(NODE,), models=("m",), redis="memory", port=0, admin_port=65535, no_auth=True)

    with resolve(options, {}) as settings:
        assert (NodeSpec(engine="vllm", url="http://127.0.0.1:1", models=("m",)),) == settings.nodes
        assert (0, 65535) == (settings.server.port, settings.server.admin_port)
        assert ("memory", False) == (settings.store.url, settings.auth.enabled)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(nodes=("vllm=notaurl",)), "--node: expected a node's address like http://10.0.0.1:8000"),
        (Options(nodes=("http://h:1",)), "--node takes ENGINE=URL, for example vllm=http://127.0.0.1:8000"),
        (Options(nodes=("llama=http://h:1",)), "--node: expected one of vllm, sglang, openai before the ="),
        (Options(nodes=("vllm=http://me:secret@h",)), "got 'http://***@h'"),
        (Options(nodes=(NODE, NODE)), "--node: two nodes are called 127.0.0.1:1; leave one out"),
        (Options(nodes=(NODE,), redis="wat"), "--redis: expected redis://HOST:PORT/DATABASE"),
        (Options(nodes=(NODE,), redis="redis://h/first"), " or embedded, got 'redis://h/first'"),
        (Options(nodes=(NODE,), port=99999), "--port: expected a port from 0 (a free one) to 65535, got"),
        (Options(nodes=(NODE,), admin_port=-1), "--admin-port: expected a port from 0"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_in_one_line(options: Options, says: str) -> None:
    """Which one, what to write instead, and no password."""
    told = refusal(options)

    assert says in told
    assert "\n" not in told
    assert "secret" not in told


def test_a_wrong_override_is_named_by_its_setting() -> None:
    """`--set` reaches every setting, with the same bounds as a file."""
    options = Options(nodes=(NODE,), overrides=("nodes=3", "store.pool_size=0"))

    with pytest.raises(InvalidConfig) as refused, resolve(options, {}):
        pass

    assert [
        "nodes (set by nodes=): expected a list, got 3",
        "store.pool_size (set by store.pool_size=): expected a number from 1 to 10000, got 0",
    ] == sorted(map(str, refused.value.problems))
