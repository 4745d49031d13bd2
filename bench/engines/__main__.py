"""`python -m bench.engines`: install what is missing, run tests with engines and the trainer, and time them.

One engine after the other, since each takes gigabytes. Each one's tests are run whatever became of the
other's, but not where something could not be installed; ends with 1 if a phase failed.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.engines.places import ENGINES

INSTALL = "install"
TRAINER = "llamafactory"
"""No engine, but as large and as real: what trains has its tests here, too."""
EVERYTHING = (*ENGINES, TRAINER)


@dataclass(frozen=True, slots=True)
class Phase:
    """A command that is timed."""

    name: str
    command: tuple[str, ...]


def phases(engines: Sequence[str], options: Sequence[str]) -> list[Phase]:
    """What is run, in order; `options` are pytest's."""
    pytest = (sys.executable, "-m", "pytest", "-m", "engines", "-rA", "--durations=10", "tests/engines")
    tests = [Phase(engine, (*pytest, "-k", engine, *options)) for engine in engines]
    installs = [Phase(INSTALL, (sys.executable, "-m", "locks.install_engines"))]
    if TRAINER in engines:
        installs.append(Phase(f"{INSTALL} {TRAINER}", (sys.executable, "-m", "locks.install_llamafactory")))
    return [*installs, *tests]


def main() -> int:
    """Run them; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__)
    parser.add_argument("--only", choices=EVERYTHING, action="append", help="one of them; repeatable")
    known, options = parser.parse_known_args()
    told: list[tuple[str, float, int]] = []
    for phase in phases(known.only or EVERYTHING, options):
        print(f"== {phase.name}", flush=True)
        started = time.monotonic()
        code = subprocess.run(phase.command, check=False).returncode
        told.append((phase.name, time.monotonic() - started, code))
        if code and phase.name.startswith(INSTALL):
            break
    print(f"\n{'phase':<21} seconds")
    for name, seconds, code in told:
        print(f"{name:<21} {seconds:7.0f}  {'failed' if code else 'passed'}")
    print(f"{'together':<21} {sum(seconds for _, seconds, _ in told):7.0f}")
    return int(any(code for *_, code in told))


if __name__ == "__main__":
    sys.exit(main())
