"""From the options of `friendo serve` to settings: a file or none, and what the options say on top.

An option's value is held against the form of the setting it stands for here already, so that the complaint
names the option that was typed.
"""

import contextlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.cli.settings_file import checked, read_settings, settings_without_file
from gateway.config_file.forms import distinct_nodes, node_address, port
from gateway.errors import BadOption
from gateway.local.embedded import embedded_valkey
from gateway.routing.node import Engine, NodeSpec
from gateway.settings import FORMS, Settings

_ENGINES = typing.get_args(Engine)


class Options(msgspec.Struct, frozen=True):
    """The command line as it was given."""

    config: Path | None = None
    nodes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    redis: str | None = None
    port: int | None = None
    admin_port: int | None = None
    no_auth: bool = False
    overrides: tuple[str, ...] = ()


@contextlib.contextmanager
def resolve(options: Options, env: Mapping[str, str]) -> Iterator[Settings]:
    """The settings in force; an embedded store, if asked for, runs while the block does.

    Raises `BadOption`, or what the configuration file's reader raises.
    """
    nodes = [_node(text, options.models) for text in options.nodes]
    _check(options, nodes)
    with contextlib.ExitStack() as stack:
        url = options.redis
        if url == "embedded":
            url = stack.enter_context(embedded_valkey(_data_folder(env)))
        overrides = [*_assignments(options, nodes, url), *options.overrides]
        if options.config is None and nodes:
            yield settings_without_file(env, overrides)
        else:
            yield read_settings(options.config, env, overrides)


def _data_folder(env: Mapping[str, str]) -> Path:
    home = env.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "friendo"


def _check(options: Options, nodes: list[dict[str, object]]) -> None:
    if wrong := distinct_nodes(nodes):
        raise BadOption(f"--node: {wrong}")
    if options.redis is not None:
        checked("--redis", _redis_option, options.redis)
    if options.port is not None:
        checked("--port", port, options.port)
    if options.admin_port is not None:
        checked("--admin-port", port, options.admin_port)


def _redis_option(value: str) -> str:
    wrong = FORMS["store.url"](value) if value != "embedded" else ""
    return f"{wrong} or embedded" if wrong else ""


def _assignments(options: Options, nodes: Sequence[dict[str, object]], url: str | None) -> Iterator[str]:
    if nodes:
        yield f"nodes={msgspec.json.encode(nodes).decode()}"
    if url is not None:
        yield f"store.url={url}"
    if options.port is not None:
        yield f"server.port={options.port}"
    if options.admin_port is not None:
        yield f"server.admin_port={options.admin_port}"
    if options.no_auth:
        yield "auth.enabled=false"


def node_of(text: str, model: str, api_key: str) -> NodeSpec:
    """The one node of a command that asks one. Raises `BadOption`."""
    return msgspec.convert({**_node(text, (model,)), "api_key": api_key}, NodeSpec)


def _node(text: str, models: tuple[str, ...]) -> dict[str, object]:
    engine, separator, url = text.partition("=")
    if not separator:
        raise BadOption(f"--node takes ENGINE=URL, for example vllm=http://127.0.0.1:8000, not {text!r}")
    if engine not in _ENGINES:
        raise BadOption(f"--node: expected one of {', '.join(_ENGINES)} before the =, got {engine!r}")
    checked("--node", node_address, url)
    return {"engine": engine, "url": url, "models": models}
