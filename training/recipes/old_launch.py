"""How an old command's processes were launched, as a recipe's launch."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from training.recipes.checks_launch import REFUSED, SET_HERE
from training.recipes.faults import BadRecipe
from training.recipes.old_command import OldCommand
from training.recipes.recipe import DeepSpeed, Launch, Offload
from training.recipes.yaml_lines import parsed

_PROCESSES = {"num_gpus": "processes", "nproc_per_node": "processes", "num_processes": "all"}
_NODES = {"num_nodes": "nodes", "nnodes": "nodes", "num_machines": "nodes"}
_MOST = {"processes": 64, "nodes": 1024, "all": 64 * 1024}
_BY_MACHINE = "is of the machine, and given when a run begins"
_OF_THE_MACHINE = frozenset(
    {
        "master_port",
        "master_addr",
        "node_rank",
        "machine_rank",
        "main_process_ip",
        "main_process_port",
        "include",
        "exclude",
        "hostfile",
        "gpu_ids",
        "standalone",
        "multi_gpu",
        "rdzv_backend",
        "rdzv_endpoint",
        "rdzv_id",
    }
)


class OldLaunch(msgspec.Struct, frozen=True):
    """The launch, what has to be told of it, and the numbers' kind where accelerate's file said one."""

    launch: Launch
    notes: tuple[str, ...]
    precision: str = ""


def launch_of(old: OldCommand, files: Mapping[str, str], deepspeed_file: object = None) -> OldLaunch:
    """The launch. `files` has the texts of files that the command names, as far as they are known."""
    notes: list[str] = []
    counts, precision = _counts(old, files, notes)
    counts = _with_visible(old, counts, notes)
    nodes = counts.get("nodes", 1)
    processes = counts.get("processes") or max(1, -(-counts.get("all", 1) // nodes))
    environment = _environment(old, notes)
    deepspeed = _deepspeed(deepspeed_file, files, notes)
    by: Literal["plain", "torchrun", "accelerate"] = "plain"
    if old.launcher == "accelerate" and deepspeed is None:
        by = "accelerate"
    elif old.launcher != "plain" or deepspeed is not None or processes * nodes > 1:
        by = "torchrun"
    if old.launcher != by:
        notes.append(f"launcher {old.launcher} is launch.by: {by} here")
    launch = Launch(
        by=by, processes=min(processes, 64), nodes=nodes, deepspeed=deepspeed, environment=environment
    )
    return OldLaunch(launch, tuple(notes), precision)


def _counts(old: OldCommand, files: Mapping[str, str], notes: list[str]) -> tuple[dict[str, int], str]:
    counts: dict[str, int] = {}
    precision = ""
    for name, value in old.launcher_flags:
        said = f"--{name} {value or ''}".strip()
        key = _PROCESSES.get(name) or _NODES.get(name)
        if key is not None:
            number = _whole(value, _MOST[key])
            if number is None:
                notes.append(
                    f"{said} of the launcher is no number from 1 to {_MOST[key]}: set launch yourself"
                )
            else:
                counts[key] = number
                notes.append(f"{said} of the launcher is launch.{'nodes' if key == 'nodes' else 'processes'}")
        elif name == "config_file":
            counts, precision = _from_file(value or "", files, counts, notes)
        elif name == "mixed_precision" and value in {"bf16", "fp16", "no"}:
            precision = value if value != "no" else ""
            notes.append(f"{said} of the launcher is {f'{precision}: true' if precision else 'left out'}")
        elif name in _OF_THE_MACHINE:
            notes.append(f"{said} of the launcher {_BY_MACHINE}")
        else:
            notes.append(f"{said} of the launcher is not carried over")
    return counts, precision


def _from_file(
    path: str, files: Mapping[str, str], counts: dict[str, int], notes: list[str]
) -> tuple[dict[str, int], str]:
    """What accelerate's file says of processes; it is written anew for each run."""
    text = files.get(path)
    if text is None:
        notes.append(f"--config_file {path} was not read: set launch.processes and launch.nodes yourself")
        return counts, ""
    try:
        values = parsed(text, name=path)
    except BadRecipe as error:
        notes.append(f"--config_file {path} was not understood ({error}): set launch yourself")
        return counts, ""
    found = dict(counts)
    for name, key in (("num_processes", "all"), ("num_machines", "nodes")):
        number = _whole(str(values.get(name)), _MOST[key])
        if number is not None:
            found[key] = number
    notes.append(f"--config_file {path}: processes, machines and mixed precision are carried over, no more")
    precision = str(values.get("mixed_precision", ""))
    return found, precision if precision in {"bf16", "fp16"} else ""


def _with_visible(old: OldCommand, counts: dict[str, int], notes: list[str]) -> dict[str, int]:
    """CUDA_VISIBLE_DEVICES is how many GPUs, where nothing else says it."""
    visible = old.variables.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return counts
    count = len([part for part in visible.split(",") if part.strip()])
    notes.append(f"CUDA_VISIBLE_DEVICES={visible} is set for each run, from the GPUs that it gets")
    if not counts and 1 < count <= _MOST["processes"]:
        notes.append(f"launch.processes is {count}, one for each of the {count} GPUs")
        return {"processes": count}
    return counts


def _environment(old: OldCommand, notes: list[str]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for name, value in old.variables.items():
        if name == "CUDA_VISIBLE_DEVICES":
            continue
        if name in SET_HERE:
            notes.append(f"{name}={value} is set for each run, from launch and machine")
        elif name in REFUSED:
            notes.append(f"{name}={value} is left out: it {REFUSED[name]}")
        else:
            environment[name] = value
    return environment


def _deepspeed(path: object, files: Mapping[str, str], notes: list[str]) -> DeepSpeed | None:
    """A file's name, or True where the flag had none."""
    if path is None:
        return None
    text = files.get(str(path))
    if text is None:
        notes.append(f"--deepspeed {path} was not read: launch.deepspeed.stage is 3 by guess; set it")
        return DeepSpeed(stage=3)
    try:
        zero = msgspec.json.decode(text, type=_File).zero_optimization
    except msgspec.DecodeError as error:
        notes.append(f"--deepspeed {path} was not understood ({error}): the stage is 3 by guess; set it")
        return DeepSpeed(stage=3)
    offload: Offload = "none"
    if zero.offload_param.device not in {"", "none"}:
        offload = "all"
    elif zero.offload_optimizer.device not in {"", "none"}:
        offload = "optimizer"
    notes.append(f"--deepspeed {path}: stage and offload are carried over, no more; the file is written anew")
    return DeepSpeed(stage=zero.stage, offload=offload)


class _Device(msgspec.Struct, frozen=True):
    device: str = ""


class _Zero(msgspec.Struct, frozen=True):
    stage: Literal[0, 1, 2, 3] = 0
    offload_param: _Device = _Device()
    offload_optimizer: _Device = _Device()


class _File(msgspec.Struct, frozen=True):
    zero_optimization: _Zero = _Zero()


def _whole(value: str | None, most: int) -> int | None:
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 6:
        return None
    return int(value) if 1 <= int(value) <= most else None
