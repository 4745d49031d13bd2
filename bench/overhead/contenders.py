"""Who is measured, and the command line that starts each in front of the two upstreams.

Every router runs its cache-aware policy at its own default thresholds, logs errors only, and checks health
as rarely as it does by default. The direct calls are a contender without a process: the line to compare with.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["direct", "peer", "friendo", "reference"]


@dataclass(frozen=True, slots=True)
class Rig:
    """What a contender is put in front of, and where it listens."""

    node_urls: tuple[str, ...]
    model: str
    port: int
    spare_port: int
    store_url: str


@dataclass(frozen=True, slots=True)
class Contender:
    """One line of the table. `command` starts it for a rig; a direct call has none."""

    name: str
    kind: Kind
    command: Callable[[Rig, Path], list[str]] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    remembers: bool = False  # each connection is one conversation and sends only what is new


def sglang_router(rig: Rig, python: Path) -> list[str]:
    return [str(python), "-m", "sglang_router.launch_router", *_router_options(rig)]


def vllm_router(rig: Rig, python: Path) -> list[str]:
    return [str(python), "-m", "vllm_router.launch_router", *_router_options(rig)]


def smg(rig: Rig, python: Path) -> list[str]:
    return [str(python), "-m", "smg", "launch", "--backend", "vllm", *_router_options(rig)]


def friendo(rig: Rig, python: Path) -> list[str]:
    """The gateway itself, from the environment that runs the benchmark."""
    nodes = [part for url in rig.node_urls for part in ("--node", f"vllm={url}")]
    listen = ["--port", str(rig.port), "--admin-port", str(rig.spare_port)]
    store = ["--redis", rig.store_url or "memory"]
    return [
        str(python.parent / "friendo"),
        "serve",
        *nodes,
        "--model",
        rig.model,
        *listen,
        "--no-auth",
        *store,
    ]


def _router_options(rig: Rig) -> list[str]:
    listen = ["--host", "127.0.0.1", "--port", str(rig.port)]
    metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(rig.spare_port)]
    return [
        *listen,
        "--worker-urls",
        *rig.node_urls,
        "--policy",
        "cache_aware",
        *metrics,
        "--log-level",
        "error",
    ]


def floor(rig: Rig, python: Path) -> list[str]:
    """The least that a relay in Python can cost; shown on request only."""
    nodes = [part for url in rig.node_urls for part in ("--node", url)]
    return [str(python), "-m", "bench.overhead.floor", "--port", str(rig.port), *nodes]


CONTENDERS = (
    Contender(name="direct", kind="direct"),
    Contender(name="sglang-router", kind="peer", command=sglang_router),
    Contender(name="vllm-router", kind="peer", command=vllm_router),
    Contender(name="smg", kind="peer", command=smg),
    Contender(name="friendo history off", kind="friendo", command=friendo, headers={"x-history": "off"}),
    Contender(name="friendo history on", kind="friendo", command=friendo, remembers=True),
    Contender(name="floor", kind="reference", command=floor),
)


def project_python() -> Path:
    """The Python that runs the benchmark; `friendo` stands beside it."""
    return Path(sys.executable)
