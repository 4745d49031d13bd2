"""The routers that people would pick instead, each installed into an environment of its own.

They share command names and pin each other's libraries, so none of them may enter the project's `.venv`. An
environment is kept in the user's cache and reused until its lock file changes.
"""

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

LOCKS = Path(__file__).resolve().parents[2] / "locks"
INSTALL_LIMIT_S = 300
VERSIONS = {"sglang-router": "0.3.2", "vllm-router": "0.1.17", "smg": "1.13.0"}
_STAMP = "installed-from"


class PeerUnavailableError(Exception):
    """A peer cannot be installed here; the message says why and what to do."""


def cache_root() -> Path:
    """Where the peers' environments are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "friendo" / "peers"


def ensure(name: str, *, say: Callable[[str], None]) -> Path:
    """The Python of the peer's environment, made if need be; PeerUnavailableError if it cannot be made."""
    lock = LOCKS / f"peers-{name}.txt"
    if not lock.is_file():
        raise PeerUnavailableError(f"the lock file locks/{lock.name} is missing")
    place = cache_root() / f"{name}-{VERSIONS[name]}"
    python = place / "bin" / "python"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = place / _STAMP
    if python.exists() and stamp.is_file() and stamp.read_text() == digest:
        return python
    say(f"installing {name} {VERSIONS[name]} into {place}")
    try:
        venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(place)
        _install(python, lock)
    except (OSError, subprocess.SubprocessError) as error:
        raise PeerUnavailableError(_reason(error)) from error
    stamp.write_text(digest)
    return python


def _install(python: Path, lock: Path) -> None:
    # --no-deps: the lock is the whole list, and nothing may be built or fetched beside it.
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "-r", str(lock)]
    subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_LIMIT_S
    )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"pip was not done after {INSTALL_LIMIT_S} s; run it again when the package index answers"
    if isinstance(error, subprocess.CalledProcessError):
        complaints = [line for line in (error.stderr or "").splitlines() if line.startswith("ERROR:")]
        return complaints[-1].removeprefix("ERROR: ") if complaints else f"pip ended with {error.returncode}"
    return f"no virtual environment with {sys.executable}: {error}"
