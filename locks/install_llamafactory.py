"""Make the environment in which LLaMA-Factory runs, from two locks beside this file; standard library only.

    python3 -m locks.install_llamafactory [FOLDER]

FOLDER becomes a link to a neighbour named after the locks, and becomes it last: at every moment it leads to
the whole environment of before, to the whole new one, or to nothing. An interrupted run therefore breaks
nothing and starts anew, a changed lock makes a new neighbour, and a job that runs in the old one finishes
there: what no link leads to is removed at the start of the next run.

There are two locks and two calls of pip because pip wants hashes for everything in a call or for nothing,
and PyTorch's builds for the CPU cannot have them (llamafactory-torch.txt says why). Only wheels are taken:
building would run tools that no lock names.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from locks.install import install, make
from training.llamafactory import INSTALL_COMMAND, LlamaFactory, default_folder

LOCKS = Path(__file__).parent
TORCH = LOCKS / "llamafactory-torch.txt"
EVERYTHING_ELSE = LOCKS / "llamafactory-cpu.txt"
NEEDED_BYTES = 3 * 10**9
ANSWERS_WITHIN_S = 300


def main(folder: Path) -> None:
    """Make the environment, unless it is there; ends the process with what to do if it cannot be made."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    name = f"{folder.name}-{digest((TORCH, EVERYTHING_ELSE, Path(__file__)))}"
    try:
        with alone(folder.with_name(f"{folder.name}.lock")):
            publish(folder, name, build=build)
    except KeyboardInterrupt:
        sys.exit(f"\ninterrupted; nothing was changed in {folder}. Run it again with: {INSTALL_COMMAND}")


def digest(paths: Sequence[Path]) -> str:
    """What an environment is made of, in ten characters."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:10]


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """No other process is in here with the same lock; ends this one if another is."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another {INSTALL_COMMAND} is at work; wait until it has ended ({lock})")
        yield


def publish(folder: Path, name: str, *, build: Callable[[Path], None]) -> None:
    """Let `folder` lead to its neighbour `name`, which `build` makes unless it is there whole."""
    if folder.exists() and not folder.is_symlink():
        sys.exit(f"{folder} is not of this program's making; move it away, then run {INSTALL_COMMAND} again")
    wanted = folder.with_name(name)
    current = folder.readlink().name if folder.is_symlink() else None
    for neighbour in folder.parent.glob(f"{folder.name}-*"):
        if neighbour.name != current and is_ours(neighbour.name):
            shutil.rmtree(neighbour)
    program = LlamaFactory(folder, installed_in=folder).cli()
    if current == name and program and (folder / "bin" / "python").exists():
        print(f"LLaMA-Factory is installed: {program}")
        return
    if current == name:
        folder.unlink()
    build(wanted)
    link = folder.with_name(f"{folder.name}.new")
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(folder)
    print(f"LLaMA-Factory is installed: {folder / 'bin' / 'llamafactory-cli'}")


def is_ours(name: str) -> bool:
    """Whether a neighbour's name ends as `digest` makes it: what it does not name is not removed."""
    return re.search(r"-[0-9a-f]{10}$", name) is not None


def build(environment: Path) -> None:
    """Make the whole environment and start its program once."""
    free = shutil.disk_usage(environment.parent).free
    if free < NEEDED_BYTES:
        sys.exit(f"{environment.parent} has {free / 1e9:.1f} GB left, {NEEDED_BYTES / 1e9:.0f} GB are needed")
    started = time.monotonic()
    python = environment / "bin" / "python"
    print(f"[1/4] {environment} with Python {sys.version.split()[0]}; 2 GB, a few minutes", flush=True)
    make(environment)
    try:
        install(
            python, ("--only-binary=:all:", "-r", str(TORCH)), title="[2/4] PyTorch for the CPU", wanted=1
        )
    except SystemExit as failure:
        sys.exit(
            f"{failure}\n\nIf there is no such build where pip looks for it: {TORCH} says how to mend that"
        )
    hashed = ("--only-binary=:all:", "--require-hashes", "-r", str(EVERYTHING_ELSE))
    install(python, hashed, title="[3/4] LLaMA-Factory", wanted=locked(EVERYTHING_ELSE.read_text()))
    mend(environment)
    print(f"[4/4] {version(environment)}, after {time.monotonic() - started:.0f} s", flush=True)


def locked(lock: str) -> int:
    """How many packages a lock names."""
    return len(re.findall(r"^[\w.-]+==", lock, flags=re.MULTILINE))


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
