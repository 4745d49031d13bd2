"""A small node over real HTTP that tells the log-likelihood of what it is sent, as vLLM or SGLang do.

A token is a word. One that stands somewhere before it is likely (-1 nat), another is not (-3): so a window
helps as far back as a reply repeats what was said.
"""

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LIKELY, UNLIKELY = -1.0, -3.0


@dataclass
class LikelihoodNode:
    """What it is, and what it was asked."""

    engine: str = "vllm"
    context: int = 100_000
    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body."""
        self.asked.append((path, body))
        if path == "/tokenize":
            ids = self._ids(body)
            return 200, {"count": len(ids), "max_model_len": self.context, "tokens": ids}
        if path == "/v1/completions" and self.engine == "vllm":
            return self._vllm(body)
        if path == "/generate" and self.engine == "sglang":
            return self._sglang(body)
        if path == "/v1/chat/completions":
            return 200, _chat(body)
        return 404, {"detail": "Not Found"}

    def _ids(self, body: dict[str, Any]) -> list[int]:
        if "messages" not in body:
            return [_id(word) for word in body["prompt"].split()]
        # A template whose parts are tokens of their own.
        words = [
            word
            for one in body["messages"]
            for word in (f"<{one['role']}>", *one["content"].split(), "<end>")
        ]
        return [_id(word) for word in (*words, *(["<assistant>"] if body["add_generation_prompt"] else []))]

    def _vllm(self, body: dict[str, Any]) -> tuple[int, Any]:
        ids = body["prompt"]
        if len(ids) + body["max_tokens"] > self.context:
            return 400, {"error": {"message": "maximum context length is exceeded", "code": 400}}
        values = _values(ids)
        other = {"7": {"logprob": -9.0, "rank": 2}}
        told = [
            {str(id_): {"logprob": value, "rank": 1}, **other}
            for id_, value in zip(ids[1:], values[1:], strict=True)
        ]
        rows: list[Any] = [None, *told]
        return 200, {"choices": [{"index": 0, "text": "x", "prompt_logprobs": rows}]}

    def _sglang(self, body: dict[str, Any]) -> tuple[int, Any]:
        ids, start = body["input_ids"], body["logprob_start_len"]
        assert body["return_logprob"]
        told = [[value, id_, None] for id_, value in zip(ids, _values(ids), strict=True)][start:]
        told[0][0] = None
        return 200, {"text": "x", "meta_info": {"prompt_tokens": len(ids), "input_token_logprobs": told}}


def _id(word: str) -> int:
    return zlib.crc32(word.encode())


def _values(ids: list[int]) -> list[float]:
    return [LIKELY if id_ in ids[:at] else UNLIKELY for at, id_ in enumerate(ids)]


def _chat(body: dict[str, Any]) -> dict[str, Any]:
    words = sum(len(one["content"].split()) for one in body["messages"])
    usage = {"prompt_tokens": words, "completion_tokens": body["max_tokens"], "total_tokens": words}
    message = {"role": "assistant", "content": "x"}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "length"}], "usage": usage}


@contextmanager
def likelihood_node(engine: str = "vllm", *, context: int = 100_000) -> Iterator[LikelihoodNode]:
    """One that runs until the block is left, on a free port."""
    node = LikelihoodNode(engine=engine, context=context)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(*node.answer(self.path, body))

        def do_GET(self) -> None:
            answers = {"/version": {"version": "0.32.0"}, "/v1/models": {"data": [{"id": "m"}]}}
            self._send(*((200, answers[self.path]) if self.path in answers else (404, {})))

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def _send(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    node.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
