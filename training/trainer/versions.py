"""What trains: the versions of LLaMA-Factory and what it stands on, read from its environment's folder."""

import platform
from collections.abc import Mapping
from pathlib import Path

NAMES = ("llamafactory", "torch", "transformers", "peft", "accelerate", "trl", "deepspeed")


def versions(environment: Path) -> Mapping[str, str]:
    """Of those that are installed there; nothing is imported."""
    found = {"python": platform.python_version(), "system": platform.system()}
    for entry in environment.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = entry.name.removesuffix(".dist-info").partition("-")
        if name in NAMES:
            found[name] = version
    return found
