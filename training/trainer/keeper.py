"""Keeps one training: a program of its own that outlives the worker. Run as a file, standard library only.

It reads an order (see `Order`) as JSON from standard input, takes the locks, starts the command and answers
one word on standard output:

    started     it keeps the training
    busy        somebody holds the job's folder or a GPU
    outdated    the folder has seen a newer claim than the order's

Beside the log (`trainer.log`, and the part before it, `trainer.log.1`) it writes `pid.json` when the command
runs and `rc.json` when nothing of its tree is left, each at once or not at all. SIGTERM ends the tree within
`grace_s`, SIGUSR1 within `patience_s`, which leaves time for a checkpoint. It is a sub-reaper: what its
children leave behind, in whatever session, becomes its child, so that it can end them all. What a keeper that
was killed itself has left is ended by the next one that gets a lock of its, by a mark in its environment.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

MARK = "FRIENDO_TRAINING_RUN"
"""In a trainer's environment: the job's folder."""
HELD = "FRIENDO_TRAINING_LOCKS"
"""And the locks under which it runs."""
RANK = b"LOCAL_RANK="
"""What a launcher gives each of its ranks."""
PR_SET_CHILD_SUBREAPER = 36
LOOK_EVERY_S = 0.2
NO_SUCH_COMMAND = 127


class Order(TypedDict):
    """What is to be run. `locks` are files held as long as the keeper lives, the job's own first."""

    folder: str
    command: list[str]
    environment: dict[str, str]
    locks: list[str]
    fence: int
    grace_s: float
    patience_s: float
    log_bytes: int


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or as it was before, also after a power cut."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names in it survive a power cut."""
    entry = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)


def stat_of(pid: int) -> list[str] | None:
    """What /proc/PID/stat has behind the name: state, parent, ...; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_of(pid: int) -> int | None:
    """When it was started, in ticks since boot; None when it is gone or a zombie."""
    stat = stat_of(pid)
    return None if stat is None or stat[0] in "ZX" else int(stat[19])


def boot() -> str:
    """Which boot of which machine: ticks and process ids mean nothing in another."""
    return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"


def pids() -> list[int]:
    """Every process that can be seen."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]  # noqa: PTH208  # names, many


def descendants(root: int) -> list[int]:
    """Living processes beneath `root`, at any depth; zombies are left out, their children are not."""
    children: dict[int, list[int]] = {}
    alive = set()
    for pid in pids():
        stat = stat_of(pid)
        if stat is not None:
            children.setdefault(int(stat[1]), []).append(pid)
            if stat[0] not in "ZX":
                alive.add(pid)
    found, ahead = [], list(children.get(root, ()))
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead.extend(children.get(pid, ()))
    return [pid for pid in found if pid in alive]


def environment_of(pid: int) -> list[bytes]:
    """NAME=VALUE of a living process that may be looked at; empty for any other."""
    try:
        told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return []
    return told if start_of(pid) is not None else []


def end_leftovers(locks: list[str]) -> None:
    """End what runs under one of these locks, which are ours now: nobody keeps it any more."""
    ours = {lock.encode() for lock in locks}
    while left := [pid for pid in pids() if pid != os.getpid() and ours & _locks_of(pid)]:
        for pid in left:
            send(pid, signal.SIGKILL)
        time.sleep(0.02)


def _locks_of(pid: int) -> set[bytes]:
    mark = f"{HELD}=".encode()
    told = next((one for one in environment_of(pid) if one.startswith(mark)), mark)
    return set(told.removeprefix(mark).split(b"\n")) - {b""}


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Log:
    """`trainer.log`, at most `limit` bytes; what was before lies in `trainer.log.1`, and no further."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._before = path.with_name(f"{path.name}.1")
        self._limit = limit
        self._before.unlink(missing_ok=True)
        self._file = path.open("wb", buffering=0)
        self._size = 0
        self.fault = ""

    def write(self, content: bytes) -> None:
        """A full disk must not end the training: what could not be written is lost, and the fault is kept."""
        try:
            if self._size + len(content) > self._limit:
                self._file.close()
                self._path.replace(self._before)
                self._file, self._size = self._path.open("wb", buffering=0), 0
            self._file.write(content)
            self._size += len(content)
        except (OSError, ValueError) as fault:
            self.fault = str(fault)


class Keeper:
    """The command, from its start until nothing of its tree is left."""

    def __init__(self, order: Order, wakeup: int) -> None:
        self._order = order
        self._folder = Path(order["folder"])
        self._wakeup = wakeup
        self._log = Log(self._folder / "trainer.log", order["log_bytes"])
        self._output, write_end = os.pipe()
        os.set_blocking(self._output, False)
        self._code: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        try:
            self._child = subprocess.Popen(  # noqa: S603  # the plan's command, put together by us
                order["command"],
                cwd=self._folder,
                env={**os.environ, **order["environment"], **marks(order)},
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._log.write(f"{type(error).__name__}: {error}\n".encode())
            self._code = NO_SUCH_COMMAND
        os.close(write_end)

    def report(self) -> None:
        """Write who runs, into pid.json."""
        child = self._child.pid if self._child else 0
        who = {"pid": os.getpid(), "start": start_of(os.getpid()), "boot": boot()}
        trainer = {"trainer_pid": child, "trainer_start": start_of(child) if child else None}
        self._write("pid.json", {**who, **trainer, "fence": self._order["fence"]})

    def keep(self, asked: list[int]) -> None:
        """Wait for the end, or bring it about once a signal number is in `asked`; then write rc.json."""
        ending_since: float | None = None
        allowed_s = self._order["grace_s"]
        while self._code is None:
            self._wait()
            if asked:
                allowed_s = self._order["grace_s" if signal.SIGTERM in asked else "patience_s"]
                if ending_since is None:
                    ending_since = time.monotonic()
                    self._ask_to_end(is_patient=signal.SIGTERM not in asked)
                if time.monotonic() - ending_since > allowed_s:
                    break
        self._end_all()
        self._drain()
        ended = {"rc": self._code, "stopped": bool(asked), "fence": self._order["fence"], "at": time.time()}
        self._write("rc.json", {**ended, "log_fault": self._log.fault})

    def _wait(self) -> None:
        ready, _, _ = select.select([self._output, self._wakeup], [], [], LOOK_EVERY_S)
        if self._wakeup in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, 512)
        if self._output in ready and not self._drain():
            time.sleep(LOOK_EVERY_S)  # closed by everybody: nothing more to read, and select would spin
        self._reap()

    def _drain(self) -> bool:
        """Move what there is into the log. False once the pipe is at its end."""
        while True:
            try:
                content = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return True
            if not content:
                return False
            self._log.write(content)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._child is not None and pid == self._child.pid:
                self._code = self._child.returncode = os.waitstatus_to_exitcode(status)

    def _end_all(self) -> None:
        """Whatever is left: asked once, then killed by its id, until nothing is."""
        asked_at = time.monotonic()
        left = descendants(os.getpid())
        for pid in left:
            send(pid, signal.SIGTERM)
        while left:
            if self._code is None or time.monotonic() - asked_at > 1:
                for pid in left:
                    send(pid, signal.SIGKILL)
            time.sleep(0.02)
            self._drain()
            self._reap()
            left = descendants(os.getpid())
        self._reap()

    def _ask_to_end(self, *, is_patient: bool) -> None:
        """With patience the ranks alone: a launcher that hears it ends them before they have saved."""
        ranks = [pid for pid in descendants(os.getpid()) if _is_rank(pid)] if is_patient else []
        for pid in ranks:
            send(pid, signal.SIGTERM)
        if not ranks and self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGTERM)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_whole(self._folder / name, json.dumps(content).encode())


def marks(order: Order) -> dict[str, str]:
    """What a trainer's environment says of whose it is."""
    return {MARK: order["folder"], HELD: "\n".join(order["locks"])}


def _is_rank(pid: int) -> bool:
    return any(one.startswith(RANK) for one in environment_of(pid))


def locked(paths: list[str]) -> list[int] | None:
    """Descriptors that hold the locks, or None if one is taken."""
    held = []
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        held.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            for taken in held:
                os.close(taken)
            return None
    return held


def is_outdated(folder: Path, fence: int) -> bool:
    """A run of a newer claim was begun here."""
    try:
        seen = json.loads((folder / "pid.json").read_text())["fence"]
    except (FileNotFoundError, ValueError, KeyError):
        return False
    return bool(seen > fence)


def answer(word: str) -> None:
    """The one word, and nothing more ever."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def main() -> None:
    """One order, one training."""
    order: Order = json.load(sys.stdin)
    folder = Path(order["folder"])
    held = locked(order["locks"])
    if held is None:
        answer("busy")
        return
    if is_outdated(folder, order["fence"]):
        answer("outdated")
        return
    # Whoever started this waits for it, and so owns no process that goes on. The locks are shared.
    if os.fork():
        os._exit(0)
    end_leftovers(order["locks"])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    (folder / "rc.json").unlink(missing_ok=True)
    keeper = Keeper(order, read_end)
    keeper.report()
    answer("started")
    keeper.keep(asked)


if __name__ == "__main__":
    main()
