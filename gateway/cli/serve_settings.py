"""From the options of `friendo serve` to settings: a file or none, and what the options say on top."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from gateway.config_file import config_path, load, load_path
from gateway.errors import BadOption
from gateway.local.embedded import embedded_valkey
from gateway.settings import Settings


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
    with contextlib.ExitStack() as stack:
        url = options.redis
        if url == "embedded":
            url = stack.enter_context(embedded_valkey(_data_folder(env) / "valkey"))
        overrides = [*_assignments(options, url), *options.overrides]
        if options.config is None and options.nodes:
            yield load(Settings, "", env, overrides)
        else:
            yield load_path(Settings, options.config or config_path(env), env, overrides)


def _data_folder(env: Mapping[str, str]) -> Path:
    home = env.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "friendo"


def _assignments(options: Options, url: str | None) -> Iterator[str]:
    if options.nodes:
        nodes = [_node(text, options.models) for text in options.nodes]
        yield f"nodes={msgspec.json.encode(nodes).decode()}"
    if url is not None:
        yield f"store.url={url}"
    if options.port is not None:
        yield f"server.port={options.port}"
    if options.admin_port is not None:
        yield f"server.admin_port={options.admin_port}"
    if options.no_auth:
        yield "auth.enabled=false"


def _node(text: str, models: tuple[str, ...]) -> dict[str, object]:
    engine, separator, url = text.partition("=")
    if not separator:
        raise BadOption(f"--node takes ENGINE=URL, for example vllm=http://127.0.0.1:8000, not {text!r}")
    return {"engine": engine, "url": url, "models": models}
