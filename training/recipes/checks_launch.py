"""Checks of the launch: processes, DeepSpeed, GPUs, nodes, environment."""

import re
from collections.abc import Iterator

from training.recipes.case import Case

SET_HERE = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "FORCE_TORCHRUN",
        "NPROC_PER_NODE",
        "NNODES",
        "NODE_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "HF_HUB_OFFLINE",
        "HF_DATASETS_OFFLINE",
        "RECORD_VRAM",
    }
)
"""Variables that rendering sets, from the launch and the machine."""

REFUSED = {
    "ALLOW_EXTRA_ARGS": "lets LLaMA-Factory pass over settings in silence",
    "USE_MCA": "chooses another trainer, whose settings are others",
    "USE_RAY": "chooses another launcher",
    "RDZV_ID": "chooses elastic launching, which is not offered",
    "LLAMABOARD_ENABLED": "belongs to who stops the run",
    "LLAMABOARD_WORKDIR": "belongs to who stops the run",
    "PATH": "would hide the trainer's own programs",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


def processes(case: Case) -> Iterator[str]:
    """One for each GPU, begun by something that can begin many."""
    launch = case.recipe.launch
    if launch.by == "plain" and launch.world > 1:
        yield f"{launch.world} processes need launch.by: torchrun (or accelerate)"
    if case.recipe.settings.model.use_unsloth and launch.world > 1:
        yield "use_unsloth trains on one GPU only"
    if launch.by == "accelerate" and launch.world > 1 and case.recipe.settings.run.use_cpu:
        yield "accelerate begins one process on a CPU, however many are wanted: use launch.by: torchrun"
    machine = case.machine
    if machine is None:
        return
    if machine.gpus and not case.recipe.settings.run.use_cpu and len(machine.gpus) != launch.processes:
        yield (
            f"launch.processes is {launch.processes}, one for each GPU, and this run got "
            f"{len(machine.gpus)} on this machine"
        )
    if machine.node_rank >= launch.nodes:
        yield f"this machine's rank is {machine.node_rank}, of launch.nodes: {launch.nodes}, counted from 0"
    if launch.nodes > 1 and machine.master_addr in _LOCAL:
        yield f"{launch.nodes} nodes need the address of the first one, not {machine.master_addr}"


def deepspeed(case: Case) -> Iterator[str]:
    """It needs torchrun, even for one process, and its package needs a GPU."""
    launch = case.recipe.launch
    if launch.deepspeed is None:
        return
    if launch.by != "torchrun":
        yield "launch.deepspeed needs launch.by: torchrun, for one process too"
    if case.recipe.settings.run.use_cpu:
        yield "launch.deepspeed is for GPUs: leave it out with use_cpu"
    if launch.deepspeed.offload == "all" and launch.deepspeed.stage != 3:
        yield "launch.deepspeed.offload: all needs stage 3"
    if launch.deepspeed.offload == "optimizer" and launch.deepspeed.stage == 0:
        yield "launch.deepspeed.offload: optimizer needs stage 1, 2 or 3"


def environment(case: Case) -> Iterator[str]:
    """Names that are set anyway would be set twice."""
    for name, value in case.recipe.launch.environment.items():
        if not _NAME.fullmatch(name) or "\0" in value or "\n" in value:
            yield f"launch.environment: {name!r} is no variable, or its value has several lines"
        elif name in SET_HERE:
            yield f"launch.environment: {name} is set from the launch and the machine; leave it out"
        elif name in REFUSED:
            yield f"launch.environment: {name} {REFUSED[name]}; leave it out"
