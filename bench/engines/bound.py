"""Run an engine whose processes all end with the one that started it, however that ends.

`python -m bench.engines.bound COMMAND ...`, in a session of its own, with a pipe as standard input that the
starter keeps open: when the pipe ends, so does everything in the session. That one process dies with its
parent (gateway.local.child) would not be enough: vLLM's workers live on without their server.
"""

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """Run the command; gives its exit code."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as engine:
        signal.signal(signal.SIGTERM, lambda *_: engine.terminate())
        threading.Thread(target=end_with_stdin, daemon=True).start()
        return engine.wait()


def end_with_stdin() -> None:
    """Wait until nobody holds the pipe any more, then kill the whole group, this process with it."""
    while os.read(sys.stdin.fileno(), 4096):  # a buffered read would hold a lock when the program ends
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
