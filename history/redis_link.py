"""Calls to the store: one deadline each, a bounded number at once, scripts by their digest.

It is the one place where redis-py's exceptions end: what leaves here is `StoreUnavailable`. Where replicas
are waited for, `WAIT` goes out behind the call on the same connection, in the same round trip.
"""

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from history.deadline import Deadlines
from history.errors import StoreUnavailable
from history.redis_client import reason
from history.redis_cluster import ClusterRoute
from history.redis_place import Durability, RedisPlace, parse_place
from history.redis_route import Route, ServerRoute
from history.redis_sentinel import SentinelRoute
from history.redis_wire import Command, Wire

Argument = bytes | str | int | float

_PROMISE_NOTHING = frozenset(
    {
        "renew",
        "release",
        "leave",
        "rebind",
        "read",
        "load",
        "turns",
        "vectors",
        "branch",
        "branches",
        "ratings",
    }
    | {"PING", "ZRANGE", "EXISTS"}
)
"""What only reads, and what may get lost without anybody having been told that it will not."""
# A server that carries out a call for the second time may find nothing left to write, and WAIT looks at the
# last write of its own connection: without one it would vouch for what no replica has. So one is made.
_SETTLE = "redis.call('SET', KEYS[1], '') redis.call('UNLINK', KEYS[1])"


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the digest under which the server remembers it."""

    name: str
    source: str
    sha: str


def load_script(name: str, *, prelude: str = "") -> Script:
    """The script `lua/<name>.lua`, with the script `prelude` in front of it."""
    folder = files("history") / "lua"
    parts = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in (prelude, name) if part]
    return script_of(name, "\n".join(parts))


def script_of(name: str, source: str) -> Script:
    """A script of that text; `name` is what its calls are counted under."""
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class Unconfirmed(StoreUnavailable):
    """Too few replicas said in time that they have what was written: it may stay, or a failover loses it."""


class RedisLink:
    """Sends commands to the place. Opens nothing before the first one.

    Every command must be safe to send twice: after a lost connection it is sent once more to a single
    server, and until the deadline where another one may take over. `sent` counts what went out, repeats
    included, by the name of the script or command.

    A call raises `StoreUnavailable`, of which `Unconfirmed` is one kind. The constructor raises `ValueError`
    for a URL that means no place.
    """

    def __init__(
        self,
        place: RedisPlace | str,
        *,
        size: int,
        timeout_s: float,
        durability: Durability | None = None,
    ) -> None:
        self.sent: Counter[str] = Counter()
        self._timeout_s = timeout_s
        self._durability = durability or Durability()
        self._deadlines = Deadlines()
        self._slots = asyncio.Semaphore(size)
        self._route = _route_to(parse_place(place) if isinstance(place, str) else place, timeout_s)

    async def run(self, script: Script, keys: Sequence[bytes], *arguments: Argument) -> Any:
        """Run a script by its digest, or by its source where the server does not know it yet."""
        rest = (len(keys), *keys, *arguments)
        return await self._call(
            script.name, keys[0], ("EVALSHA", script.sha, *rest), ("EVAL", script.source, *rest)
        )

    async def command(self, name: str, *arguments: Argument) -> Any:
        """Send one command; its first argument is its key."""
        key = arguments[0] if arguments else None
        assert key is None or isinstance(key, bytes)
        return await self._call(name, key, (name, *arguments))

    async def close(self) -> None:
        """Close the idle connections now and those in use when their call ends."""
        await self._route.close()

    async def _call(self, name: str, key: bytes | None, *forms: Command) -> Any:
        """The answer to the first form that the server understands."""
        behind = self._acknowledgement(name, key)
        try:
            with self._deadlines.within(self._timeout_s) as deadline:
                async with self._slots:
                    for form in forms:
                        answers = await self._deliver(name, key, (form, *behind), deadline.until)
                        if not isinstance(answers[0], NoScriptError):
                            break
        except TimeoutError as error:
            self._route.doubt()
            raise StoreUnavailable("the store did not answer in time") from error
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the store did not answer: {reason(error)}") from error
        if behind:
            self._check(answers[-1])
        return answers[0]

    async def _deliver(
        self, name: str, key: bytes | None, commands: Sequence[Command], until: float
    ) -> list[Any]:
        """The answers, from whichever server has the key at last. Raises what no further try would mend."""
        asked: Wire | None = None
        for attempt in itertools.count():
            try:
                wire = asked or await self._route.wire(key)
                self.sent[name] += 1
                if asked is None:
                    answers = await wire.exchange(commands)
                else:  # ASKING holds for the next command only
                    pairs = [part for command in commands for part in (("ASKING",), command)]
                    answers = (await wire.exchange(pairs))[1::2]
                if not isinstance(answers[0], RedisError) or isinstance(answers[0], NoScriptError):
                    return answers
                refusal: RedisError = answers[0]
            except RedisError as error:
                refusal = error
            asked = await self._route.after(refusal, attempt, until)
        raise AssertionError("unreachable: the route ends the attempts")

    def _acknowledgement(self, name: str, key: bytes | None) -> tuple[Command, ...]:
        """What goes out behind a call whose effect a caller will be promised."""
        if not self._durability.wait_replicas or key is None or name in _PROMISE_NOTHING:
            return ()
        settled = key[: key.index(b"}") + 1] + b":settled"
        return (
            ("EVAL", _SETTLE, 1, settled),
            ("WAIT", self._durability.wait_replicas, int(self._durability.wait_s * 1000)),
        )

    def _check(self, acknowledged: Any) -> None:
        wanted = self._durability.wait_replicas
        if not isinstance(acknowledged, RedisError) and acknowledged >= wanted:
            return
        self._route.doubt()  # replicas that are gone may follow another master by now
        if isinstance(acknowledged, RedisError):
            refusal = f"the store did not wait for its replicas: {acknowledged}"
            raise Unconfirmed(refusal) from acknowledged
        raise Unconfirmed(
            f"{acknowledged} of {wanted} replicas confirmed in time; what was written may get lost, "
            "so it counts as not written"
        )


def _route_to(place: RedisPlace, timeout_s: float) -> Route:
    match place.kind:
        case "cluster":
            return ClusterRoute(place, timeout_s=timeout_s)
        case "sentinel":
            return SentinelRoute(place, timeout_s=timeout_s)
        case _:
            return ServerRoute(place, timeout_s=timeout_s)
