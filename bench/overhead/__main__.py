"""`python -m bench.overhead`: measure every contender in one run, print the table, write the numbers.

The contenders take turns (A B C A B C …), so that a machine that slows down slows them all.
"""

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.overhead import measure, peers, processes, report
from bench.overhead.contenders import CONTENDERS, Contender, project_python
from bench.overhead.measure import Settings, Stage
from bench.overhead.report import Sample

RESULTS = Path(__file__).resolve().parents[1] / "results" / "overhead.json"


def say(text: str) -> None:
    """Progress goes to standard error; the table alone to standard output."""
    print(text, file=sys.stderr, flush=True)


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument(
        "--requests", type=_positive, default=12800, help="JSON requests per contender and round"
    )
    parser.add_argument(
        "--streams", type=_positive, default=640, help="streamed replies per contender and round"
    )
    parser.add_argument("--connections", type=_positive, default=64)
    parser.add_argument("--repeat", type=_positive, default=3, help="rounds; the table shows medians")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[one.name for one in CONTENDERS])
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--with-floor", action="store_true", help="also a relay that decides nothing")
    parser.add_argument(
        "--lockstep", action="store_true", help="all streams tick together, not spread in time"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


def chosen(asked: argparse.Namespace) -> list[Contender]:
    """The contenders that this run measures."""
    if asked.only:
        return [one for one in CONTENDERS if one.name in asked.only]
    left_out = {"peer" if asked.without_peers else "", "" if asked.with_floor else "reference"}
    return [one for one in CONTENDERS if one.kind not in left_out]


def pythons(contenders: Sequence[Contender]) -> dict[str, Path | str]:
    """Each contender's Python, or why it has none."""
    found: dict[str, Path | str] = {}
    for contender in contenders:
        if contender.kind != "peer":
            found[contender.name] = project_python()
            continue
        try:
            found[contender.name] = peers.ensure(contender.name, say=say)
        except peers.PeerUnavailableError as error:
            found[contender.name] = str(error)
    return found


def measure_all(contenders: Sequence[Contender], *, settings: Settings, rounds: int) -> list[Sample]:
    """All rounds of all contenders in front of the same two upstreams."""
    homes = pythons(contenders)
    cores = processes.share_cores(os.sched_getaffinity(0))
    samples: list[Sample] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="friendo-overhead-")))
        urls = tuple(
            stack.enter_context(measure.upstream(cores, folder / f"upstream-{index}.log"))
            for index in range(2)
        )
        stage = Stage(node_urls=urls, cores=cores, folder=folder)
        for number in range(1, rounds + 1):
            for contender in contenders:
                home = homes[contender.name]
                if isinstance(home, str):
                    samples.append(Sample(contender=contender.name, kind=contender.kind, unavailable=home))
                    continue
                say(f"round {number} of {rounds}: {contender.name}")
                samples.append(measure.measure(contender, home, stage=stage, settings=settings))
    return samples


def write(path: Path, samples: Sequence[Sample], settings: Settings) -> None:
    """Everything measured, for machines."""
    document = {
        "settings": dataclasses.asdict(settings),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "rows": report.summarise(samples),
        "samples": samples,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def main() -> int:
    """Run the benchmark; 1 if the machine cannot."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that every child is stopped
    asked = options().parse_args()
    if not hasattr(os, "sched_setaffinity"):
        say("this benchmark reads /proc and pins processes to cores: run it on Linux")
        return 1
    settings = Settings(
        requests=asked.requests,
        streams=asked.streams,
        connections=asked.connections,
        lockstep=asked.lockstep,
    )
    started_at = time.monotonic()
    samples = measure_all(chosen(asked), settings=settings, rounds=asked.repeat)
    write(asked.output, samples, settings)
    print(report.render(report.summarise(samples)))
    print(f"{time.monotonic() - started_at:.0f} s; numbers in {asked.output}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
