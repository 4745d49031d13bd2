"""What starts an engine with the small model: traits, and the command and environment that give them. Pure.

The traits say what a test or a measurement is about: how much KV there is, in blocks of which size, adapters,
ranks. Everything else is what docs/nodes.md asks for, and what makes an engine bearable on a CPU.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.engines.places import Places

MODEL_NAME = "smollm2"
HOST = "127.0.0.1"
SHIM = Path(__file__).parent / "sglang_on_cpu"
LORA_RANK = 16
"""The largest that is taken."""
LORA_MODULES = ("q_proj", "v_proj")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class VllmTraits:
    """A vLLM node. `kv_tokens` are rounded down to blocks."""

    kv_tokens: int = 16_384
    block_size: int = 32
    context: int = 2048
    lora: bool = False
    is_dev: bool = False
    """Whether it has `/reset_prefix_cache`."""
    engine: str = "vllm"


@dataclass(frozen=True, slots=True)
class SglangTraits:
    """A SGLang node; `kv_tokens` in each of its `ranks`."""

    kv_tokens: int = 16_384
    page_size: int = 16
    context: int = 2048
    lora: bool = False
    ranks: int = 1
    most_running: int = 16
    most_queued: int | None = None
    engine: str = "sglang"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where it listens. Each rank publishes its KV events at a port of its own, counted from `events`."""

    http: int
    events: int
    replay: int


@dataclass(frozen=True, slots=True)
class Launch:
    """A command line, and what its environment has beside what is there."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


def vllm(traits: VllmTraits, ports: Ports, places: Places) -> Launch:
    """How vLLM is started."""
    events = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{ports.events}",
        "replay_endpoint": f"tcp://*:{ports.replay}",
    }
    command = [
        *(str(places.python("vllm")), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(places.model_folder()), "--served-model-name", MODEL_NAME),
        *("--host", HOST, "--port", str(ports.http), "--max-model-len", str(traits.context)),
        *("--enforce-eager", "--dtype", "bfloat16", "--block-size", str(traits.block_size)),
        *("--num-gpu-blocks-override", str(traits.kv_tokens // traits.block_size)),
        *("--enable-prefix-caching", "--enable-prompt-tokens-details"),
        *("--kv-events-config", json.dumps(events)),
    ]
    environment = {**OFFLINE, "VLLM_NO_USAGE_STATS": "1"}
    if traits.lora:
        command += ["--enable-lora", "--max-lora-rank", str(LORA_RANK)]
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if traits.is_dev:
        environment["VLLM_SERVER_DEV_MODE"] = "1"
    if places.on_gpu:
        command += ["--gpu-memory-utilization", "0.3"]  # two of them fit on one
    else:
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        environment["OMP_NUM_THREADS"] = "1"  # two nodes on two processors, and somebody has to ask them
    return Launch(tuple(command), environment)


def sglang(traits: SglangTraits, ports: Ports, places: Places) -> Launch:
    """How SGLang is started."""
    events = {
        "publisher": "zmq",
        "endpoint": f"tcp://*:{ports.events}",
        "replay_endpoint": f"tcp://*:{ports.replay}",
        "topic": "kv-events",
    }
    command = [
        *(str(places.python("sglang")), "-m", "sglang.launch_server"),
        *("--model-path", str(places.model_folder()), "--served-model-name", MODEL_NAME),
        *("--host", HOST, "--port", str(ports.http), "--context-length", str(traits.context)),
        *("--max-total-tokens", str(traits.kv_tokens), "--page-size", str(traits.page_size)),
        *("--max-running-requests", str(traits.most_running), "--chunked-prefill-size", "1024"),
        *("--sleep-on-idle", "--enable-cache-report", "--enable-metrics", "--dp-size", str(traits.ranks)),
        *("--kv-events-config", json.dumps(events)),
    ]
    if traits.most_queued is not None:
        command += ["--max-queued-requests", str(traits.most_queued)]
    if traits.lora:
        command += ["--enable-lora", "--max-lora-rank", str(LORA_RANK), "--max-loras-per-batch", "2"]
        command += ["--lora-target-modules", *LORA_MODULES]
    if places.on_gpu:
        return Launch((*command, "--mem-fraction-static", "0.3"), OFFLINE)
    command += ["--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"]
    command += ["--cuda-graph-backend-decode=disabled", "--cuda-graph-backend-prefill=disabled"]
    command += ["--lora-backend", "torch_native"] if traits.lora else []
    environment = {**OFFLINE, "SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SHIM)}
    if traits.ranks > 1:
        environment["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(map(str, range(traits.ranks)))
    return Launch(tuple(command), environment)
