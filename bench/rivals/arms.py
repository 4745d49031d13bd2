"""Who is put in front of the nodes, and how each is started.

Every router runs the policies that suit dialogues, at thresholds fit for a few nodes: it leaves a warm node
when that has eight requests more than another, not 64 as by default. Sticky policies get the dialogue's
name in the header that each of them reads.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.rivals.window import Keeping
from history.window import WindowRule


class Front(msgspec.Struct, frozen=True):
    """What one process of an arm is put in front of, and where it listens."""

    engine: str
    model: str
    node_urls: Sequence[str]
    port: int
    spare_port: int
    store_url: str
    rule: WindowRule
    settings: Sequence[str] = ()
    """More settings of the gateway, as SECTION.KEY=VALUE."""


Command = Callable[[Front, Path], list[str]]


class Arm(msgspec.Struct, frozen=True):
    """One line of the table."""

    name: str
    keeping: Keeping
    peer: str = ""
    """The router to install; empty: none, or this gateway."""
    command: Command | None = None
    """None: the client goes round the nodes by itself."""


def friendo(front: Front, python: Path) -> list[str]:
    """This gateway as it ships, but for the window and what a run is asked to set."""
    nodes = [part for url in front.node_urls for part in ("--node", f"{front.engine}={url}")]
    window = [
        f"history.rules.window.{end}_turns={getattr(front.rule, f'{end}_turns')}" for end in ("min", "max")
    ]
    options = [part for setting in (*window, *front.settings) for part in ("--set", setting)]
    listen = ["--port", str(front.port), "--admin-port", str(front.spare_port)]
    serve = [
        str(python),
        "-m",
        "gateway",
        "serve",
        "--model",
        front.model,
        "--no-auth",
        "--redis",
        front.store_url,
    ]
    return [*serve, *listen, *nodes, *options]


def friendo_auto(front: Front, python: Path) -> list[str]:
    """The same, with `max_turns` left to it."""
    return [*friendo(front, python), "--set", "history.rules.window.max_turns=auto"]


def _router(module: Sequence[str], *policy: str) -> Command:
    def command(front: Front, python: Path) -> list[str]:
        listen = ["--host", "127.0.0.1", "--port", str(front.port)]
        metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(front.spare_port)]
        nodes = ["--worker-urls", *front.node_urls]
        return [
            str(python),
            "-m",
            *module,
            *listen,
            *nodes,
            "--policy",
            *policy,
            *metrics,
            "--log-level",
            "error",
        ]

    return command


_SGLANG, _VLLM = ("sglang_router.launch_router",), ("vllm_router.launch_router",)
_SMG = ("smg", "launch", "--backend", "vllm")
_BALANCE = ("--balance-abs-threshold", "8", "--balance-rel-threshold", "1.5")

ARMS = (
    Arm("round robin, sliding", "sliding"),
    Arm("round robin, stepped", "stepped"),
    Arm("vllm-router consistent_hash, sliding", "sliding", "vllm-router", _router(_VLLM, "consistent_hash")),
    Arm("vllm-router consistent_hash, stepped", "stepped", "vllm-router", _router(_VLLM, "consistent_hash")),
    Arm(
        "vllm-router sticky_least_loaded, stepped",
        "stepped",
        "vllm-router",
        _router(_VLLM, "sticky_least_loaded"),
    ),
    Arm(
        "vllm-router cache_aware, stepped", "stepped", "vllm-router", _router(_VLLM, "cache_aware", *_BALANCE)
    ),
    Arm("smg cache_aware, sliding", "sliding", "smg", _router(_SMG, "cache_aware", *_BALANCE)),
    Arm("smg cache_aware, stepped", "stepped", "smg", _router(_SMG, "cache_aware", *_BALANCE)),
    Arm(
        "smg consistent_hashing, stepped",
        "stepped",
        "smg",
        _router(_SMG, "consistent_hashing", "--sticky-sessions"),
    ),
    Arm(
        "sglang-router cache_aware, stepped",
        "stepped",
        "sglang-router",
        _router(_SGLANG, "cache_aware", *_BALANCE),
    ),
    Arm("friendo", "gateway", command=friendo),
    Arm("friendo, max_turns auto", "gateway", command=friendo_auto),
)


def project_python() -> Path:
    """The Python that runs the benchmark."""
    return Path(sys.executable)
