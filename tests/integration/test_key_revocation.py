"""Keys through a real store: made by one process, used and refused in another."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.keys.errors import InvalidKey
from gateway.keys.keyring import ANSWER_WITHIN_S, POLL_EVERY_S, Keyring
from gateway.keys.redis_keys import RECORDS, VERSION, RedisKeys

PEPPER = "p" * 32
SHORT_S = 0.2
STEP_S = 0.01


def friendo(*arguments: str, pepper: str = PEPPER) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    env = {**os.environ, "FRIENDO_KEY_PEPPER": pepper, "COLUMNS": "160"}
    command = [sys.executable, "-m", "gateway", "keys", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


class Polled(RedisKeys):
    """Counts how often it was asked whether anything has changed."""

    polls = 0

    async def version(self) -> str:
        self.polls += 1
        return await super().version()


@asynccontextmanager
async def polling(
    url: str, *, poll_every_s: float = POLL_EVERY_S, keys: type[RedisKeys] = RedisKeys
) -> AsyncIterator[Keyring]:
    """A keyring as a gateway runs it, on a connection of its own."""
    async with Redis.from_url(url, socket_timeout=SHORT_S, socket_connect_timeout=SHORT_S) as client:
        keyring = Keyring(keys(client), pepper=PEPPER.encode(), poll_every_s=poll_every_s)
        await keyring.load()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(keyring.run())
            yield keyring
            task.cancel()


def polled(keyring: Keyring) -> int:
    """How often it has asked."""
    store = keyring._store
    assert isinstance(store, Polled)
    return store.polls


def accepts(keyring: Keyring, header: bytes) -> bool:
    """Whether a request with this header would be let in."""
    try:
        keyring.authenticate(header, now=time.time())
    except InvalidKey:
        return False
    return True


async def until(holds: Callable[[], bool], *, within_s: float) -> bool:
    """Whether it comes to hold in time."""
    for _ in range(int(within_s / STEP_S)):
        if holds():
            return True
        await asyncio.sleep(STEP_S)
    return holds()


async def test_a_revocation_reaches_every_replica_within_two_seconds(valkey: Any) -> None:
    """Two keyrings with the shipped interval, one command line; the key works before and not after.

    That is with the next poll: however slow the processors are, the second that begins after it sees it.
    """
    created = friendo("create", "--tenant", "acme", "--name", "app", "--redis", valkey.url)
    header = b"Bearer " + created.stdout.strip().encode()
    async with polling(valkey.url, keys=Polled) as one, polling(valkey.url, keys=Polled) as other:
        before = accepts(one, header), accepts(other, header)
        async with Redis.from_url(valkey.url) as client:
            await RedisKeys(client).revoke(created.stdout.split("-")[1], now=time.time())
        polls = polled(one), polled(other)
        after = await until(lambda: not accepts(one, header) and not accepts(other, header), within_s=20)
        took = polled(one) - polls[0], polled(other) - polls[1]

    assert before == (True, True)
    assert after
    assert max(took) <= 2
    assert POLL_EVERY_S + ANSWER_WITHIN_S < 2  # on processors that have time for it


async def test_keys_outlast_a_dead_store_and_its_return(valkey: Any) -> None:
    """Killed and started again, the store costs some polls and no caller."""
    created = friendo("create", "--tenant", "acme", "--name", "app", "--redis", valkey.url)
    header = b"Bearer " + created.stdout.strip().encode()
    async with polling(valkey.url, poll_every_s=0.05) as keyring:
        valkey.kill()
        failed = await until(lambda: keyring.outages > 0, within_s=10)
        during = accepts(keyring, header)
        await asyncio.to_thread(valkey.start)
        recovered = await until(lambda: keyring.outage is None, within_s=20)
        after = accepts(keyring, header)

    assert (failed, during, recovered, after) == (True, True, True, True)


async def test_a_store_that_hangs_costs_no_caller(valkey: Any) -> None:
    """Stopped in its tracks it answers nothing; the polls give up and later succeed again."""
    async with polling(valkey.url, poll_every_s=0.05) as keyring:
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            failed = await until(lambda: keyring.outages > 0, within_s=10)
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        recovered = await until(lambda: keyring.outage is None, within_s=20)

    assert (failed, recovered) == (True, True)


async def test_a_record_from_the_future_does_not_shut_out_the_others(valkey: Any) -> None:
    """It opens nothing itself, and is named."""
    created = friendo("create", "--tenant", "acme", "--name", "app", "--redis", valkey.url)
    header = b"Bearer " + created.stdout.strip().encode()
    async with Redis.from_url(valkey.url) as client:
        answer: Any = client.hset(RECORDS, "b" * 16, b"\xc1 no msgpack")
        await answer
    async with polling(valkey.url) as keyring:
        assert accepts(keyring, header)
        assert keyring.unreadable == ("b" * 16,)


async def test_a_record_of_broken_text_does_not_end_the_polling(valkey: Any) -> None:
    """Whoever wrote it, the keys that were read before stay valid, and what comes later is seen."""
    made = friendo("create", "--tenant", "acme", "--name", "app", "--redis", valkey.url).stdout.strip()
    header, key_id = f"Bearer {made}".encode(), made.split("-")[1]
    async with Redis.from_url(valkey.url) as client, polling(valkey.url, poll_every_s=0.02) as keyring:
        answer: Any = client.hget(RECORDS, key_id)
        broken = (await answer).replace(b"acme", b"\xff\xfe\xff\xfe").replace(key_id.encode(), b"b" * 16)
        answer = client.hset(RECORDS, "b" * 16, broken)
        await answer
        answer = client.set(VERSION, "another")
        await answer
        seen = await until(lambda: keyring.outages > 0 or bool(keyring.unreadable), within_s=10)
        during = accepts(keyring, header)
        await RedisKeys(client).forget("b" * 16)
        await RedisKeys(client).revoke(key_id, now=time.time())
        after = await until(lambda: not accepts(keyring, header), within_s=10)

    assert (seen, during, after) == (True, True, True)


def test_the_command_line_makes_lists_and_revokes(valkey: Any) -> None:
    """The key is shown once, on standard output alone, and never in the list."""
    created = friendo(
        *("create", "--tenant", "acme", "--name", "the [app]", "--scope", "admin", "--model", "m"),
        *("--expires-in", "90d", "--redis", valkey.url),
    )
    text = created.stdout.strip()
    key_id = text.split("-")[1]
    listed = friendo("list", "--redis", valkey.url)
    revoked = friendo("revoke", key_id, "--redis", valkey.url)
    listed_after = friendo("list", "--redis", valkey.url)
    forgotten = friendo("revoke", key_id, "--forget", "--redis", valkey.url)
    again = friendo("revoke", key_id, "--redis", valkey.url)

    assert [created.returncode, listed.returncode, revoked.returncode, forgotten.returncode] == [0, 0, 0, 0]
    assert len(text) == 63
    assert text not in created.stderr
    assert all(part in listed.stdout for part in (key_id, "acme", "the [app]", "admin", "active"))
    assert text[-43:] not in listed.stdout
    assert "revoked" in listed_after.stdout
    assert (1, f"there is no key {key_id}; `friendo keys list` shows the ids") == (
        again.returncode,
        again.stderr.strip(),
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tenant", "a/b", "--name", "n"), "a tenant is 1 to 64"),
        (("--tenant", "a", "--name", "n", "--scope", "root"), "there is no scope root"),
        (("--tenant", "a", "--name", "n", "--expires-in", "soon"), "write it like 12h, 90d or 52w"),
        (("--tenant", "a", "--name", "n", "--redis", "memory"), "give its address with --redis"),
        (
            ("--tenant", "a", "--name", "n", "--redis", "redis://127.0.0.1:1/0"),
            "the key store did not answer",
        ),
    ],
)
def test_a_wrong_command_is_told_in_one_line(arguments: tuple[str, ...], says: str) -> None:
    """Exit code 1, the reason on standard error, no key and no traceback."""
    refused = friendo("create", *arguments)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert says in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_no_key_is_made_with_a_short_pepper(valkey: Any) -> None:
    """The text says how to make a better one."""
    refused = friendo("create", "--tenant", "a", "--name", "n", "--redis", valkey.url, pepper="short")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "secrets.token_urlsafe(32)" in refused.stderr
