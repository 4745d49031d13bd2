"""A real S3 server over a folder: rclone's, from its wheel."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.ports import free_port

KEY, SECRET = "friendo-test-key", "friendo-test-secret"
_UP_WITHIN_S = 20


@contextlib.contextmanager
def running_s3(folder: Path) -> Iterator[Mapping[str, str]]:
    """Serve the folder's subfolders as buckets; gives the environment with which clients find it."""
    port = free_port()
    rclone = Path(sys.executable).with_name("rclone")
    command = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    command += ["--vfs-cache-mode", "off", "--config", "/dev/null", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield {
                "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "us-east-1",
                "AWS_ALLOW_HTTP": "true",
            }
        finally:
            process.kill()  # politely, it waits for the connections that clients keep open


def _wait_for(port: int) -> None:
    until = time.monotonic() + _UP_WITHIN_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > until:
            raise RuntimeError("the S3 server did not come up")
        time.sleep(0.05)
