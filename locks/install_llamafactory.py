"""Make the environment in which LLaMA-Factory runs, from two locks beside this file; standard library only.

    python3 -m locks.install_llamafactory [FOLDER]

FOLDER becomes a link to the environment (linked_folder.py), which is made as cpu_environment.py says.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from locks.cpu_environment import LOCKS, TORCH, CpuEnvironment
from locks.linked_folder import LinkedFolder
from training.llamafactory import INSTALL_COMMAND, LlamaFactory, default_folder

EVERYTHING_ELSE = LOCKS / "llamafactory-cpu.txt"
ANSWERS_WITHIN_S = 300
MADE_OF = (
    TORCH,
    EVERYTHING_ELSE,
    LOCKS / "cpu_environment.py",
    Path(__file__),
)


def main(folder: Path) -> None:
    """Make the environment, unless it is there; ends the process with what to do if it cannot be made."""
    linked(folder.absolute()).keep(MADE_OF, build=build)


def linked(folder: Path) -> LinkedFolder:
    """The environment at this place."""
    return LinkedFolder(folder, "LLaMA-Factory", INSTALL_COMMAND, is_whole)


def is_whole(folder: Path) -> bool:
    """Whether the worker would find the program there, and the program its interpreter."""
    program = LlamaFactory(folder, installed_in=folder).cli()
    return program is not None and (folder / "bin" / "python").exists()


def build(environment: Path) -> None:
    """Make the whole environment and start its program once."""
    started = time.monotonic()
    CpuEnvironment("LLaMA-Factory", EVERYTHING_ELSE, size_bytes=2 * 10**9).build(environment)
    mend(environment)
    print(f"[4/4] {version(environment)}, after {time.monotonic() - started:.0f} s", flush=True)


def mend(environment: Path) -> None:
    """Make CUDA builds bearable on a CPU; text needs neither.

    The registry's torchaudio is imported by LLaMA-Factory whatever the data is, and its libraries do not load
    without CUDA; without them its Python part does. torchvision, which needs the like and may be absent, is
    left out of the lock.
    """
    for library in environment.glob("lib/python*/site-packages/torchaudio/lib/*.so"):
        library.unlink()


def version(environment: Path) -> str:
    """What the program says of itself; ends the process if it does not start."""
    command = [str(environment / "bin" / "llamafactory-cli"), "version"]
    answer = subprocess.run(  # noqa: S603 - the program that was just installed
        command,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ANSWERS_WITHIN_S,
        check=False,
    )
    found = re.search(r"LLaMA Factory, version (\S+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        sys.exit(f"{answer.stdout}{answer.stderr}\nit was installed and does not start: {' '.join(command)}")
    return f"LLaMA-Factory {found.group(1)} starts"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder(os.environ, Path.home()))
