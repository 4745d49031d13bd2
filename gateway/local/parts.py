"""The parts of the one-machine stack: what each one runs and when it counts as ready."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.local import valkey

MODEL = "smollm2"
NODE_COUNT = 2
WINDOW_TOKENS = 5000
"""Of the model's context of 8192: the rest is for the persona, the new message and the answer."""
DRAIN_S = 5


@dataclass(frozen=True, slots=True)
class Part:
    """One program of the stack. `essential`: without it nothing works, so giving it up ends the stack."""

    name: str
    command: tuple[str, ...]
    ready_within_s: float
    stop_within_s: float
    essential: bool
    answers_on: int | None = None
    """The Valkey port to ask whether it is ready; None for a program that says so itself."""


def valkey_part(binary: Path, *, folder: Path, port: int) -> Part:
    """The store. A long append-only file takes a while to read, so its start may take minutes."""
    return Part(
        name="valkey",
        command=valkey.command(binary, folder=folder, port=port),
        ready_within_s=300,
        stop_within_s=15,
        essential=True,
        answers_on=port,
    )


def node_part(number: int, *, port: int = 0) -> Part:
    """A CPU node; port 0 lets it take a free one, which it keeps over restarts."""
    return Part(
        name=f"node-{number}",
        command=(sys.executable, "-m", "gateway.local.cpu_node", "--port", str(port), "--alias", MODEL),
        ready_within_s=120,
        stop_within_s=3,
        essential=False,
    )


def gateway_part(*, nodes: Mapping[str, str], store: str, archive: Path, port: int, admin_port: int) -> Part:
    """The gateway in front of `nodes` (URLs by name), without keys: it listens on this machine only."""
    listed = [{"engine": "openai", "url": url, "id": name, "models": [MODEL]} for name, url in nodes.items()]
    return Part(
        name="gateway",
        command=(
            *(sys.executable, "-m", "gateway", "serve"),
            *("--set", f"nodes={json.dumps(listed)}", "--redis", store),
            *("--port", str(port), "--admin-port", str(admin_port), "--no-auth"),
            *("--set", f"server.drain_s={DRAIN_S}"),
            *("--set", f"history.rules.window.max_tokens={WINDOW_TOKENS}"),
            *("--set", f"archive.url={archive.as_uri()}"),
        ),
        ready_within_s=60,
        stop_within_s=DRAIN_S + 1,
        essential=True,
    )


def worker_part(*, store: str) -> Part:
    """The training worker."""
    return Part(
        name="worker",
        command=(sys.executable, "-m", "training.worker", "--redis", store),
        ready_within_s=60,
        stop_within_s=5,
        essential=False,
    )
