"""What funboost may do to the process that imports it: nothing that outlives the import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from training.redis_queue import QUEUE, message, queue_address

ROOT = Path(__file__).parents[2]

PROGRAM = """
import builtins, json, logging, os, sys, warnings
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)

def process():
    root, logger = logging.getLogger(), logging.Logger
    return {
        "print": id(builtins.print), "excepthook": id(sys.excepthook), "path": list(sys.path),
        "root handlers": [id(handler) for handler in root.handlers], "root level": root.level,
        "logger": [id(logger.callHandlers), id(logger.addHandler), id(logger.setLevel)],
        "warnings": [id(warnings.showwarning), len(warnings.filters)],
        "stdout": id(sys.stdout), "stderr": id(sys.stderr), "environment": dict(os.environ),
    }

from training.funboost_queue import FunboostQueue
before = process()
queue = FunboostQueue(sys.argv[1], lambda job_id: None)
after = process()
queue.push("job-1")
logging.getLogger("nb_log.simple").warning("said by a logger of theirs")
handlers = {name: len(logging.getLogger(name).handlers) for name in logging.root.manager.loggerDict
            if name.startswith(("funboost", "nb_log", "simple", "default", "global_except"))}
with open(sys.argv[2], "w") as report:
    imported = "funboost" in sys.modules
    json.dump({"before": before, "after": after, "handlers": handlers, "funboost": imported}, report)
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def imported(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, str, str]:
    """The report of a fresh process that built the queue, its folders, and what it wrote to the terminal."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("home", "work", "tmp"):
        (folder / name).mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, queue_address(valkey_url), str(folder / "report.json")],
        cwd=folder / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads((folder / "report.json").read_text()), folder, ended.stdout, ended.stderr


def test_the_import_leaves_the_process_as_it_was(imported: tuple[dict, Path, str, str]) -> None:
    """`print`, `sys.excepthook`, `sys.path`, the root logger, the environment: each as it was before."""
    report = imported[0]

    assert report["funboost"] is True
    assert report["before"] == report["after"]


def test_the_import_writes_no_file(imported: tuple[dict, Path, str, str]) -> None:
    """Neither into the working folder, nor the home folder, nor for good into the one for temporary files."""
    folder = imported[1]

    assert [folder / "report.json"] == [path for path in folder.rglob("*") if path.is_file()]
    assert list((folder / "tmp").iterdir()) == []


def test_the_import_says_nothing(imported: tuple[dict, Path, str, str]) -> None:
    """Standard output is the worker's interface, and the log is its own."""
    _, _, out, err = imported

    assert out == ""
    assert err.splitlines() == ["WARNING:nb_log.simple:said by a logger of theirs"]


def test_its_loggers_have_no_handlers_of_their_own(imported: tuple[dict, Path, str, str]) -> None:
    """What they say goes where the worker's log goes, once."""
    handlers = imported[0]["handlers"]

    assert len(handlers) > 5
    assert set(handlers.values()) == {0}


def test_a_push_without_funboost_looks_like_one_of_its_own(
    valkey_url: str, imported: tuple[dict, Path, str, str]
) -> None:
    """The same fields of the same kinds, so that its consumer cannot tell them apart."""
    client = redis.Redis.from_url(queue_address(valkey_url))
    _, entry = client.xrange(QUEUE)[-1]
    client.close()
    theirs, ours = json.loads(entry[b""]), json.loads(message("job-1", now=1732420000.5))

    def shape(content: dict) -> dict:
        return {name: shape(v) if isinstance(v, dict) else type(v).__name__ for name, v in content.items()}

    assert list(entry) == [b""]
    assert shape(theirs) == shape(ours)
    assert theirs["job_id"] == ours["job_id"]
