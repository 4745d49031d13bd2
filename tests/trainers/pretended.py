"""Mimics `llamafactory-cli train`: its logs, checkpoints, resuming and ranks; standard library only.

pretended.py OUTPUT STEPS EXAMPLES [--resume CHECKPOINT] [--save N] [--step-s S] [--ranks N] [--die-at N]
             [--hang-at N] [--raise-at N]
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path


def safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")


def checkpoint(output: Path, step: int) -> None:
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    safetensors(folder / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("state", str(step))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def train(given: argparse.Namespace) -> None:
    output = Path(given.output)
    output.mkdir(exist_ok=True)
    log = output / "trainer_log.jsonl"
    log.unlink(missing_ok=True)
    first = int(given.resume.rpartition("-")[2]) if given.resume else 0
    with (output.parent / "runs.txt").open("a") as runs:
        runs.write(f"{os.getpid()} from {first}\n")
    print("[INFO|trainer.py:1469] 2026-11-24 23:38:00,581 >> ***** Running training *****")
    print(
        f"[INFO|trainer.py:1470] 2026-11-24 23:38:00,581 >>   Num examples = {given.examples:,}", flush=True
    )
    for step in range(first + 1, given.steps + 1):
        time.sleep(given.step_s)
        if step == given.hang_at:
            time.sleep(600)
        if step == given.die_at:
            os.kill(os.getpid(), 9)
        if step == given.raise_at:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB; the dialogue was: SECRET")
        with log.open("a") as lines:
            said = {"current_steps": step, "total_steps": given.steps, "loss": 2.0 / step, "lr": 1e-4}
            lines.write(json.dumps({**said, "epoch": step / 10}) + "\n")
        with (output.parent / "steps.txt").open("a") as steps:
            steps.write(f"{step}\n")
        if step % given.save == 0:
            checkpoint(output, step)
    safetensors(output / "adapter_model.safetensors")
    state = {"global_step": given.steps, "max_steps": given.steps}
    (output / "trainer_state.json").write_text(json.dumps(state))


def launch(given: argparse.Namespace) -> None:
    """As torchrun: ranks in sessions of their own; only the first one writes."""
    idle = "import time; time.sleep(600)"
    others = [
        subprocess.Popen([sys.executable, "-c", idle], start_new_session=True) for _ in range(given.ranks - 1)
    ]
    words = [word for word in sys.argv[1:] if word != "--ranks" and word != str(given.ranks)]
    first = subprocess.Popen([sys.executable, __file__, *words], start_new_session=True)
    code = first.wait()
    for other in others:
        other.kill()
    sys.exit(1 if code else 0)


parser = argparse.ArgumentParser()
parser.add_argument("output")
parser.add_argument("steps", type=int)
parser.add_argument("examples", type=int)
parser.add_argument("--resume", default="")
for option in ("--save", "--ranks", "--die-at", "--hang-at", "--raise-at"):
    parser.add_argument(option, type=int, default=0)
parser.add_argument("--step-s", type=float, default=0.1)
arguments = parser.parse_args()
arguments.save = arguments.save or 5
if arguments.ranks > 1:
    launch(arguments)
else:
    train(arguments)
