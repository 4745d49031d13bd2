"""`python -m bench.evidence`: measure what docs/answers.md shows, and draw it.

Without names all parts are run, one after the other, about two hours; `--draw` draws from what is there. Real
engines need `make engines-install` first. Each part's result is kept as soon as it has come.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from bench.evidence.parts import PARTS, Part
from bench.evidence.pictures import PICTURES
from bench.evidence.tables import filled

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
ANSWERS = ROOT / "docs" / "answers.md"


def measure(name: str, part: Part) -> None:
    """Run one part and keep its result; ends the process where there is none."""
    say(f"{name}: {part.about}; about {part.minutes} minutes")
    with tempfile.TemporaryDirectory(prefix="friendo-evidence-") as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, *(word.format(output=output) for word in part.command)]
        ended = subprocess.run(command, check=False, cwd=ROOT, env=os.environ)
        if ended.returncode:
            sys.exit(f"{name}: not measured (exit code {ended.returncode}, see above); what was kept stays")
        result = part.keep(msgspec.json.decode(output.read_bytes()))
        if not all(result.values()):
            sys.exit(f"{name}: nothing was measured, see above; what was kept stays")
        keep(name, result)


def keep(name: str, result: Any) -> None:
    """Write a part's result beside the document."""
    FIGURES.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (FIGURES / f"{name}.json").write_bytes(text + b"\n")


def known() -> dict[str, Any]:
    """The results that are there."""
    return {path.stem: msgspec.json.decode(path.read_bytes()) for path in sorted(FIGURES.glob("*.json"))}


def drawn(data: dict[str, Any]) -> dict[Path, str]:
    """Every file that is drawn from results, and what stands in it."""
    files = {ANSWERS: filled(ANSWERS.read_text(encoding="utf-8"), data)}
    return files | {
        FIGURES / f"{name}.svg": draw(data[part]) for name, (part, draw) in PICTURES.items() if part in data
    }


def say(text: str) -> None:
    """Progress goes to standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="only these")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    for name in () if asked.draw else asked.part or PARTS:
        measure(name, PARTS[name])
    for path, text in drawn(known()).items():
        path.write_text(text, encoding="utf-8")
        say(f"drawn: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
