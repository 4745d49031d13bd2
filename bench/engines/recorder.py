"""Stands between a gateway and an engine, and notes which tokens the engine read and wrote.

The gateway sees the engine as it is, but for a field that is added to chat requests without streaming: the
engine then tells the token ids of the prompt and of the answer, which are the truth about what a cache could
have held. Everything else passes through unread.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

CHAT = "/v1/chat/completions"
ASKS = {"return_token_ids": True, "return_prompt_token_ids": True}
"""By the second name of SGLang, which refuses it of a stream; vLLM ignores what it does not know."""
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host"}
_WITHIN_S = 600.0
_METHODS = ["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True, slots=True)
class Call:
    """One chat request that an engine answered. Times are of a monotonic clock, in seconds."""

    node: str
    body: dict[str, Any]
    began_at: float
    ended_at: float
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    cached: int
    """What the engine says that it found."""


@dataclass(slots=True)
class Recorder:
    """What passed by so far, and where it listens."""

    target: str
    node: str
    """What the calls say where they went; a rank is said with it."""
    calls: list[Call] = field(default_factory=list)
    running: int = 0
    """Chat requests under way."""
    url: str = ""

    async def answer(self, request: Request) -> Response:
        """Pass a request on, and its answer back."""
        body, began_at = await request.body(), time.monotonic()
        asked: dict[str, Any] = {}
        if request.url.path == CHAT:
            asked = json.loads(body)
            body = body if asked.get("stream") else json.dumps({**asked, **ASKS}).encode()
        client: httpx.AsyncClient = request.app.state.client
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        path = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        sent = client.build_request(request.method, self.target + path, content=body, headers=headers)
        answer = await client.send(sent, stream=True)
        shown = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
        if not asked:
            told = await answer.aread()
            await answer.aclose()
            return Response(told, answer.status_code, shown)
        rank = request.headers.get("x-data-parallel-rank")
        node = self.node if rank is None else f"{self.node}-rank{rank}"
        passed = self._passed(answer, asked, node, began_at)
        return StreamingResponse(passed, answer.status_code, shown)

    async def _passed(
        self, answer: httpx.Response, asked: dict[str, Any], node: str, began_at: float
    ) -> AsyncIterator[bytes]:
        told = b""
        self.running += 1
        try:
            async for data in answer.aiter_bytes():
                told += data
                yield data
        finally:
            self.running -= 1
            await answer.aclose()
        if answer.status_code == 200 and not asked.get("stream"):
            self._note(json.loads(told), asked, node, began_at)

    def _note(self, told: dict[str, Any], asked: dict[str, Any], node: str, began_at: float) -> None:
        choice, details = told["choices"][0], told["usage"]["prompt_tokens_details"] or {}
        prompt = told.get("prompt_token_ids") or choice.get("prompt_token_ids")
        answer = choice.get("token_ids") or choice.get("response_token_ids")
        call = Call(
            node=node,
            body=asked,
            began_at=began_at,
            ended_at=time.monotonic(),
            prompt=tuple(prompt or ()),
            answer=tuple(answer or ()),
            cached=details.get("cached_tokens") or 0,
        )
        self.calls.append(call)


@asynccontextmanager
async def recorded(target: str, *, node: str) -> AsyncIterator[Recorder]:
    """A recorder before the engine at `target`, in this event loop."""
    recorder = Recorder(target, node)
    app = Starlette(routes=[Route("/{path:path}", recorder.answer, methods=_METHODS)])
    limits = httpx.Limits(max_connections=None, keepalive_expiry=3.0)  # the engines close after five
    async with httpx.AsyncClient(timeout=_WITHIN_S, trust_env=False, limits=limits) as client:
        app.state.client = client
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        with _signals_left_alone(server):
            serving = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            recorder.url = f"http://127.0.0.1:{port}"
            try:
                yield recorder
            finally:
                server.should_exit = True
                await serving


@contextlib.contextmanager
def _signals_left_alone(server: uvicorn.Server) -> Any:
    """A server in a program of its own takes SIGINT; this one is a guest."""
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    yield
