"""The queue of job ids as its publishers see it: one XADD in the shape that funboost's consumer reads.

Importing funboost costs a process half a second, 60 MiB and nine hundred modules, so the gateway and the
command line, which only push, speak its wire format instead. The queue lives in a database of its own: its
keys have no prefix that we could choose. A cluster has no databases; give the queue a Redis beside it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from training.errors import QueueUnavailable

QUEUE = "friendo_jobs"
QUEUE_DATABASE = 7


def queue_address(redis_url: str, *, database: int | None = QUEUE_DATABASE) -> str:
    """Where the queue lives, given where everything else does: the same server, another database.

    With None the database is the one in the address. Raises ValueError for an address that funboost, which
    knows host, port and database number only, cannot reach.
    """
    parts = urlsplit(redis_url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError("the queue needs redis://host:port or rediss://host:port, not a socket file")
    named = parts.path.lstrip("/") or "0"
    if not named.isdecimal():
        raise ValueError("a Redis address ends with the number of a database")
    number = int(named) if database is None else database
    credentials, at, _ = parts.netloc.rpartition("@")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return urlunsplit((parts.scheme, f"{credentials}{at}{host}:{parts.port or 6379}", f"/{number}", "", ""))


def message(job_id: str, *, now: float) -> bytes:
    """What travels: the id, and what funboost would have added to it."""
    published = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    extra = {"task_id": job_id, "publish_time": round(now, 4), "publish_time_format": published}
    return msgspec.json.encode({"job_id": job_id, "extra": extra})


class RedisQueue:
    """A JobQueue over a client of the queue's database, which its owner opens and closes."""

    def __init__(self, client: "redis.asyncio.Redis | redis.asyncio.RedisCluster") -> None:
        self._client = client

    async def push(self, job_id: str) -> None:
        """See JobQueue."""
        with _translated():
            await self._client.xadd(QUEUE, {"": message(job_id, now=time.time())})


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise QueueUnavailable(f"the queue did not take the job: {error}") from error
