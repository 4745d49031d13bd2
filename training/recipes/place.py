"""Where a run takes place: the machine's share that it got, and its folders."""

from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """What of this machine the run may use. No GPUs: it trains on the CPU."""

    gpus: tuple[str, ...] = ()
    """Their numbers or UUIDs, as CUDA_VISIBLE_DEVICES names them."""
    gpu_gib: float | None = None
    """Memory of each; None: unknown, and then nothing is estimated against it."""
    cores: int = 1
    programs: Path | None = None
    """The folder with llamafactory-cli, torchrun and accelerate; None: they are on the PATH."""
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    """Of the node with rank 0."""
    master_port: int = 29500
    """Free on that node. Two runs on one machine need two."""


class Folders(msgspec.Struct, frozen=True):
    """Where a job's files lie. All paths are absolute."""

    job: Path
    """Gets recipe.yaml and what belongs to it."""
    output: Path
    checkpoint: Path | None = None
    """The one to go on from."""
    base_model: str = ""
    """What the job's model stands for, a folder or a name on the hub; empty: as the recipe says."""
