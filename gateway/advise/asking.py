"""A node that is asked things for advice: one request after the other, timed. Not the way of chats."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import msgspec

from gateway.errors import BadOption
from gateway.nodes.model_list import listed, read_models
from gateway.routing.node import Engine

T = TypeVar("T")

_CONNECT_S = 5.0
_ANSWER_S = 300.0
_SHOWN = 300


class NodeAnswer(msgspec.Struct, frozen=True):
    """A body, and how long it took."""

    body: bytes
    seconds: float


class NodeAsked:
    """One node, one model."""

    def __init__(self, client: httpx.AsyncClient, engine: Engine, url: str, model: str) -> None:
        self._client = client
        self.engine: Engine = engine
        self.url = url
        self.model = model

    async def post(self, path: str, body: dict[str, object]) -> NodeAnswer:
        """The whole answer to this JSON. Raises `BadOption` for everything but a 200."""
        return await self._ask("POST", path, msgspec.json.encode(body))

    async def get(self, path: str) -> NodeAnswer:
        """The whole answer. Raises `BadOption` for everything but a 200."""
        return await self._ask("GET", path, b"")

    async def check(self) -> None:
        """Raise `BadOption` unless the node is there and serves the model: SGLang answers for any name."""
        try:
            served = {model.id for model in read_models((await self.get("/v1/models")).body)}
        except ValueError as error:
            raise self.fault("/v1/models", f"this is no list of models ({error})") from error
        if self.model not in served:
            raise self.fault("/v1/models", f"it does not serve {self.model!r}, but {listed(served)}")

    def fault(self, path: str, what: str) -> BadOption:
        """What went wrong with this node, for a person."""
        return BadOption(f"--node {self.engine}={self.url}: {path}: {what}")

    async def _ask(self, method: str, path: str, content: bytes) -> NodeAnswer:
        headers = {"content-type": "application/json"} if content else {}
        began = time.perf_counter()
        try:
            answer = await self._client.request(method, path, content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise self.fault(path, f"no answer within {_ANSWER_S:.0f} s") from error
        except httpx.HTTPError as error:
            raise self.fault(
                path, f"it cannot be reached ({type(error).__name__}); is it running?"
            ) from error
        seconds = time.perf_counter() - began
        if answer.status_code != 200:
            said = " ".join(answer.text.split())[:_SHOWN]
            raise self.fault(path, f"answered {answer.status_code}: {said}")
        return NodeAnswer(answer.content, seconds)


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The answers of calls under way at once. The first `BadOption` ends them all, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            going = [tasks.create_task(call) for call in calls]
    except ExceptionGroup as faults:
        if (first := faults.subgroup(BadOption)) is not None:
            raise _first(first) from faults
        raise
    return [task.result() for task in going]


def _first(faults: BaseException) -> BaseException:
    return _first(faults.exceptions[0]) if isinstance(faults, BaseExceptionGroup) else faults


@asynccontextmanager
async def node_asked(engine: Engine, url: str, model: str, api_key: str) -> AsyncIterator[NodeAsked]:
    """The node, with a connection of its own for so long; only at this address, by no proxy."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=timeout, trust_env=False, follow_redirects=False
    ) as client:
        yield NodeAsked(client, engine, url, model)
