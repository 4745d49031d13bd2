"""Where the engines' environments and the small model are; standard library only, the installer reads it.

On a machine with a GPU, name what is there instead: FRIENDO_VLLM_PYTHON and FRIENDO_SGLANG_PYTHON are the
interpreters of environments that have the engine, FRIENDO_ENGINES_DEVICE=gpu has them use it.
FRIENDO_ENGINES_MODEL is a folder with a chat model in Hugging Face's format.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

INSTALL_COMMAND = "make engines-install"
ENGINES = ("vllm", "sglang")
MODEL = "smollm2"


class EngineMissingError(Exception):
    """An environment or the model is not there; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """What engines are started from. `on_gpu`: by the environments' own builds, not the locks'."""

    pythons: Mapping[str, Path]
    model: Path
    on_gpu: bool = False

    def python(self, engine: str) -> Path:
        """The interpreter of an engine's environment."""
        return _present(self.pythons[engine], f"{engine} is not installed")

    def model_folder(self) -> Path:
        """The model in Hugging Face's format."""
        _present(self.model / "config.json", "the small model is not made")
        return self.model


def cache_folder(environment: Mapping[str, str], home: Path) -> Path:
    """Where everything lies that can be made again."""
    cache = environment.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else home / ".cache") / "friendo"


def places(environment: Mapping[str, str], home: Path) -> Places:
    """Where things are for this user."""
    cache = cache_folder(environment, home)
    made = {engine: cache / engine / "bin" / "python" for engine in ENGINES}
    named = {engine: environment.get(f"FRIENDO_{engine.upper()}_PYTHON") for engine in ENGINES}
    device = environment.get("FRIENDO_ENGINES_DEVICE", "cpu")
    if device not in ("cpu", "gpu"):
        raise EngineMissingError(f"FRIENDO_ENGINES_DEVICE is {device!r}: write cpu or gpu")
    return Places(
        pythons={engine: Path(named[engine] or made[engine]) for engine in ENGINES},
        model=Path(environment.get("FRIENDO_ENGINES_MODEL") or cache / MODEL),
        on_gpu=device == "gpu",
    )


def _present(path: Path, otherwise: str) -> Path:
    if not path.exists():
        raise EngineMissingError(f"{otherwise}: there is no {path}. Install it with: {INSTALL_COMMAND}")
    return path
