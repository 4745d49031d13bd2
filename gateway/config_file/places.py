"""Which configuration counts: `config/<RUNTIME_ENV>.yaml` and `config/prompts/`, here or installed."""

import re
from collections.abc import Mapping
from pathlib import Path

import gateway
from gateway.errors import GatewayError

DEFAULT_ENV = "dev"
_NAME = re.compile(r"[A-Za-z0-9_-]+")


class ConfigNotFound(GatewayError):
    """RUNTIME_ENV names no configuration; the text says where it was looked for."""


def config_path(env: Mapping[str, str]) -> Path:
    """The file for the environment's RUNTIME_ENV (`dev` where it is not set).

    Looked for in `config/` of the current directory, inside the installed package, and beside it (a source
    tree). Raises ConfigNotFound.
    """
    name = env.get("RUNTIME_ENV") or DEFAULT_ENV
    if not _NAME.fullmatch(name):
        raise ConfigNotFound(f"RUNTIME_ENV={name!r} is no name; it is made of letters, digits, _ and -")
    folders = _folders()
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigNotFound(
        f"RUNTIME_ENV is {name}, but there is no {name}.yaml in {', '.join(map(str, folders))}. "
        f"Known environments: {', '.join(known) or 'none'}."
    )


def prompts_folder() -> Path:
    """Where the texts of the gateway's own instructions to models are; the first that exists counts."""
    folders = [folder / "prompts" for folder in _folders()]
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def _folders() -> tuple[Path, Path, Path]:
    package = Path(gateway.__file__).parent
    return Path.cwd() / "config", package / "config", package.parent / "config"
