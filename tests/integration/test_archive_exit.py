"""A process that has just used the archive ends in order: a command's exit code says what came of it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from history.archive import SEGMENT
from history.conversation import ConversationKey, Turn
from history.object_archive import ObjectArchive

async def main():
    archive, key = ObjectArchive(sys.argv[1]), ConversationKey("t", "c")
    await archive.write(key, 0, [Turn(messages=(b"{}",), digests=bytes(16))] * SEGMENT)
    await archive.read(key, 0, SEGMENT)
    print([await archive.clear(folder, 1e12) async for folder in archive.folders(1e12)])

asyncio.run(main())
"""


def run(url: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, url],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_a_process_ends_in_order(tmp_path: Path) -> None:
    """Whatever threads the archive has: it died of them once in three times."""
    ended = [run(tmp_path.as_uri(), {}) for _ in range(12)]

    assert [(0, "[1]\n")] * 12 == [(one.returncode, one.stdout) for one in ended], ended[-1].stderr


def test_an_object_store_that_is_away_is_given_up() -> None:
    """Within half a minute, and by its name."""
    away = {"AWS_ENDPOINT": f"http://127.0.0.1:{free_port()}", "AWS_ALLOW_HTTP": "true"}
    credentials = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    ended = run("s3://bucket/dialogues", away | credentials)

    assert 1 == ended.returncode
    assert "StoreUnavailable: the archive did not take a piece" in ended.stderr
