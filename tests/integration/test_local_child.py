"""Programs that end with the process that started them, however that ends."""

import os
import signal
import subprocess
import sys
import time

import psutil

from gateway.local.child import wrapped

GONE_WITHIN_S = 5.0
ENDS_WITHIN_S = 60.0
# A parent that starts a wrapped child which ignores SIGTERM, says its process id, and waits.
PARENT = """
import os, subprocess, time
from gateway.local.child import wrapped
program = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
child = subprocess.Popen(
    wrapped(({python!r}, "-c", program), parent=os.getpid()), stdout=subprocess.PIPE, start_new_session=True
)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_ends_when_its_parent_is_killed() -> None:
    """SIGKILL leaves the parent no time to clean up, and still there is no orphan."""
    command = (sys.executable, "-c", PARENT.format(python=sys.executable))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not is_gone(child)
        parent.kill()

    until = time.monotonic() + GONE_WITHIN_S
    while not is_gone(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert is_gone(child)


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    """The parent may end between the fork and the request to the kernel, which then never acts."""
    with subprocess.Popen((sys.executable, "-c", "")) as ended:
        pass
    done = subprocess.run(
        wrapped((sys.executable, "-c", "print('started')"), parent=ended.pid),
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert f"process {ended.pid}, which started this one, is gone" in done.stderr


def test_a_program_that_does_not_exist_is_named() -> None:
    """The log says which binary is missing, not a traceback."""
    command = wrapped(("no-such-program",), parent=os.getpid())
    done = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_WITHIN_S, check=False)

    assert done.returncode == 1
    assert done.stderr == "cannot run no-such-program: No such file or directory\n"


def test_the_wrapped_program_has_the_wrappers_process() -> None:
    """It is the program itself that gets the signals, not something in front of it."""
    program = (sys.executable, "-c", "import time; time.sleep(60)")
    with subprocess.Popen(wrapped(program, parent=os.getpid())) as child:
        child.terminate()
        assert child.wait() == -signal.SIGTERM
