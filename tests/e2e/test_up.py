"""`friendo up` from the outside: real store, real model, real gateway, and the unmodified OpenAI SDK."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import psutil
import pytest

from gateway.local import preflight, welcome
from tests.ports import free_port

COMMAND = (sys.executable, "-m", "gateway", "up")
READY_WITHIN_S = 60.0
ENDS_WITHIN_S = 20.0
# Below the time limit of a test, so that a failure can say what happened; the examples ask for 64 tokens.
ANSWERS_WITHIN_S = 60.0
PARTS = 5
# Parts that show no address are found by what they run.
MODULES = {"worker": "training.worker"}
LAST_LINE = "Ctrl-C stops everything."


class Up:
    """One `friendo up` over a data folder; its output goes to a file. Ports are kept over `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.admin_port = free_port()
        self.parts: list[psutil.Process] = []
        self._output = folder.with_name(f"{folder.name}.out")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def ports(self) -> set[int]:
        return {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", self.output)}

    def begin(self) -> subprocess.Popen[bytes]:
        ports = ("--port", str(self.port), "--admin-port", str(self.admin_port))
        with self._output.open("wb") as output:
            return subprocess.Popen(
                (*COMMAND, "--data", str(self.folder), *ports),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> None:
        self._process = self.begin()
        self.wait_for(LAST_LINE)
        self.parts = psutil.Process(self._process.pid).children(recursive=True)

    def wait_for(self, text: str) -> None:
        assert self._process is not None
        until = time.monotonic() + READY_WITHIN_S
        while text not in self.output:
            assert self._process.poll() is None, self.output
            assert time.monotonic() < until, self.output
            time.sleep(0.05)

    def end(self, number: signal.Signals) -> int:
        """Send the signal and wait; return the exit code."""
        self.send(number)
        return self.wait()

    def send(self, number: signal.Signals) -> None:
        """As a terminal would, to the whole process group."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=ENDS_WITHIN_S)

    def clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def part(self, name: str) -> psutil.Process:
        """The process that is this part now."""
        assert self._process is not None
        parts = psutil.Process(self._process.pid).children(recursive=True)
        address = re.search(rf"{name} +\w+://127\.0\.0\.1:(\d+)", self.output)
        if address is None:
            return next(part for part in parts if MODULES[name] in part.cmdline())
        return next(part for part in parts if int(address[1]) in ports_of(part))


def ports_of(part: psutil.Process) -> set[int]:
    return {connection.laddr.port for connection in part.net_connections() if connection.status == "LISTEN"}


@contextmanager
def stack(folder: Path) -> Iterator[Up]:
    up = Up(folder)
    try:
        up.start()
        yield up
    finally:
        up.clean_up()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with stack(tmp_path_factory.mktemp("up") / "data") as up:
        yield up


def alive(parts: list[psutil.Process]) -> list[str]:
    return [part.name() for part in parts if part.is_running() and part.status() != psutil.STATUS_ZOMBIE]


def listening(ports: set[int]) -> set[int]:
    return {port for port in ports if not preflight.is_free(port)}


def say(up: Up, text: str, *, conversation: str) -> tuple[str, int]:
    """One message through the SDK; returns the answer and the tokens of prompt and answer."""
    with openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": text}],
            max_tokens=16,
            temperature=0,
            extra_body={"conversation": conversation},
        )
    assert answer.usage is not None
    return answer.choices[0].message.content or "", answer.usage.total_tokens


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    """The command's end; one that does not come is a failure that shows what was printed until then."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=ANSWERS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(
                f"{command} did not end within {ANSWERS_WITHIN_S:g} s; it printed {out!r} and {err!r}"
            )
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_the_sdk_example_works_as_printed_and_shows_memory(shared: Up) -> None:
    """Copied from the screen word for word: one request has the name, the answer to the next one uses it."""
    example = welcome.sdk_example(shared.url)
    assert example in shared.output

    done = ran(sys.executable, "-c", example)

    assert done.stderr == ""
    assert "Hello, Alice" in done.stdout


def test_the_curl_example_works_as_printed(shared: Up) -> None:
    """It continues the same conversation from the shell."""
    example = welcome.curl_example(shared.url)
    assert example in shared.output

    done = ran("sh", "-c", f"exec curl --silent --show-error --fail {example.removeprefix('curl ')}")

    assert (done.returncode, done.stderr) == (0, "")
    assert '"chat.completion"' in done.stdout


def test_a_second_up_on_the_same_data_is_refused(shared: Up) -> None:
    """One line that says who has the folder, and nothing is disturbed."""
    other = Up(shared.folder)
    other._output = shared.folder.with_name("second.out")
    code = other.begin().wait(timeout=ENDS_WITHIN_S)

    line = rf"friendo up: process \d+ already keeps its data in {shared.folder}; stop it, or .* --data\n"
    assert code == 1
    assert re.fullmatch(line, other.output)


def test_a_port_in_use_is_one_clear_line(shared: Up, tmp_path: Path) -> None:
    """Which port, and which option changes it; nothing else is started or printed."""
    other = Up(tmp_path / "data")
    other.port = shared.port
    code = other.begin().wait(timeout=ENDS_WITHIN_S)

    assert code == 1
    reason = f"port {shared.port} is in use; free it, or choose another with --port PORT"
    assert other.output == f"friendo up: {reason}\n"


@pytest.mark.parametrize("name", ["node-1", "node-2", "worker", "valkey", "gateway"])
def test_a_part_that_dies_is_named_and_comes_back(shared: Up, name: str) -> None:
    """Killed, named in a line with its log, started again; what was said before is still known afterwards."""
    _, tokens = say(shared, "Hello.", conversation=f"death-of-{name}")
    shared.part(name).kill()

    shared.wait_for(
        f"{name} was killed by SIGKILL; starting it again in 0.2 s [{shared.folder}/logs/{name}.log]"
    )
    shared.wait_for(f"{name} is back")
    assert say(shared, "Hello.", conversation=f"death-of-{name}")[1] > tokens


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_orderly_end_leaves_no_process_and_no_port(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, `kill`, or a closed terminal: exit code 0 and nothing left behind."""
    with stack(tmp_path / "data") as up:
        ports = up.ports
        assert len(up.parts) >= PARTS
        assert ports == listening(ports)

        assert up.end(number) == 0

        assert alive(up.parts) == []
        assert listening(ports) == set()
        assert up.output.endswith("stopping\nstopped\n")


def test_ctrl_c_lets_an_answer_be_finished(tmp_path: Path) -> None:
    """Whoever waits for an answer gets the whole of it, and it is remembered."""
    with stack(tmp_path / "data") as up:
        with openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as client:
            answer = client.chat.completions.create(
                model="smollm2",
                messages=[{"role": "user", "content": "Tell me a story about the sea."}],
                max_tokens=40,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"conversation": "story"},
            )
            chunks = [next(answer)]
            up.send(signal.SIGINT)
            chunks += list(answer)
        assert up.wait() == 0
        finished = [
            choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason
        ]
        usage = chunks[-1].usage
        assert len(finished) == 1
        assert usage is not None

        up.start()
        assert say(up, "And then?", conversation="story")[1] > usage.total_tokens


def test_data_survives_a_restart(tmp_path: Path) -> None:
    """What was said before Ctrl-C is in the prompt after the next start."""
    with stack(tmp_path / "data") as up:
        _, tokens = say(up, "Hello, my name is Alice.", conversation="kept")
        assert up.end(signal.SIGINT) == 0
        up.start()
        answer, more = say(up, "Say hello to me by name.", conversation="kept")

    assert more > tokens
    assert "Alice" in answer


def test_kill_9_of_up_leaves_no_orphan_and_loses_no_turn(tmp_path: Path) -> None:
    """Only the kernel can clean up after SIGKILL; the next start finds ports and data as they should be."""
    with stack(tmp_path / "data") as up:
        _, tokens = say(up, "Hello, my name is Alice.", conversation="kept")
        ports, parts = up.ports, up.parts
        up.end(signal.SIGKILL)
        psutil.wait_procs(parts, timeout=2)
        assert (alive(parts), listening(ports)) == ([], set())

        up.start()
        assert say(up, "Say hello to me by name.", conversation="kept")[1] > tokens
        assert up.end(signal.SIGINT) == 0


def test_ctrl_c_while_loading_ends_at_once(tmp_path: Path) -> None:
    """A start that is not wanted any more can be stopped."""
    up = Up(tmp_path / "data")
    process = up._process = up.begin()
    try:
        up.wait_for("node-1     loading")
        parts = psutil.Process(process.pid).children(recursive=True)
        assert up.end(signal.SIGINT) == 0
        assert alive(parts) == []
    finally:
        up.clean_up()


def test_the_ports_checked_are_those_of_this_machine(tmp_path: Path) -> None:
    """A server that listens on all interfaces holds the port, too."""
    up = Up(tmp_path / "data")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", up.admin_port))
        taken.listen()
        code = up.begin().wait(timeout=ENDS_WITHIN_S)

    assert code == 1
    assert f"port {up.admin_port} is in use" in up.output
    assert "--admin-port PORT" in up.output
