"""Make a virtual environment with PyTorch for the CPU in it, from two locks; standard library only.

There are two locks and two calls of pip because pip wants hashes for everything in a call or for nothing, and
PyTorch's builds for the CPU cannot have them (torch-cpu.txt says why). Only wheels are taken: building would
run tools that no lock names. Nothing is resolved, so no build for CUDA slips in behind another package.
"""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from locks.install import install, make

LOCKS = Path(__file__).parent
TORCH = LOCKS / "torch-cpu.txt"


@dataclass(frozen=True, slots=True)
class CpuEnvironment:
    """An environment of `what`: torch-cpu.txt and everything in `lock`, `size_bytes` when it is unpacked."""

    what: str
    lock: Path
    size_bytes: int

    def build(self, environment: Path) -> None:
        """Make all of it; ends the process with what to do if that fails."""
        free = shutil.disk_usage(environment.parent).free
        needed = self.size_bytes + 10**9  # pip keeps what it fetched
        if free < needed:
            sys.exit(f"{environment.parent} has {free / 1e9:.1f} GB left, {needed / 1e9:.0f} GB are needed")
        python = environment / "bin" / "python"
        size = f"{self.size_bytes / 1e9:.1f} GB, a few minutes"
        print(f"[1/4] {environment} with Python {sys.version.split()[0]}; {size}", flush=True)
        make(environment)
        try:
            install(
                python, ("--only-binary=:all:", "-r", str(TORCH)), title="[2/4] PyTorch for the CPU", wanted=1
            )
        except SystemExit as failure:
            sys.exit(f"{failure}\n\nIf pip finds no such build: {TORCH} says where it should look")
        hashed = ("--only-binary=:all:", "--require-hashes", "-r", str(self.lock))
        install(python, hashed, title=f"[3/4] {self.what}", wanted=locked(self.lock.read_text()))


def locked(lock: str) -> int:
    """How many packages a lock names."""
    return len(re.findall(r"^[\w.-]+==", lock, flags=re.MULTILINE))
