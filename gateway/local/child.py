"""Run a program that cannot outlive the process that started it.

`python -m gateway.local.child PARENT COMMAND ...` asks the kernel to kill this process when its parent
ends, however the parent ends, and then becomes COMMAND: the request survives `exec`, so it also binds
programs that know nothing of it, such as Valkey. PARENT is the process id of the starter: without it a
parent that ended before the request was made could not be told from one that still lives.

Linux only. Elsewhere the program still runs, and only an orderly stop of the parent ends it. The kernel
watches the starting *thread*: start children from one that lives as long as the process, the main one.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as process `parent` is gone; exit if it is gone already."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot tie this process to its parent")
    if os.getppid() != parent:
        sys.exit(f"process {parent}, which started this one, is gone")


def wrapped(command: tuple[str, ...], *, parent: int) -> tuple[str, ...]:
    """The command line that runs `command` tied to process `parent`."""
    return (sys.executable, "-m", "gateway.local.child", str(parent), *command)


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the program named in the arguments."""
    parent, *command = arguments
    die_with_parent(int(parent))
    try:
        os.execvp(command[0], command)  # noqa: S606 - the whole point is to become this program, without a shell
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
