"""What a node has seen: how its inference requests ended, and the last of them with headers and body."""

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from bench.stub_node.http1 import Request

_KEPT_REQUESTS = 50
_KEPT_BYTES = 32 * 1024 * 1024


@dataclass(slots=True)
class Traffic:
    """A request ends in one of three ways: finished, aborted (cut short by either side) or refused."""

    requests: int = 0
    finished: int = 0
    aborted: int = 0
    refused: int = 0
    last: deque[Request] = field(default_factory=deque)
    kept_bytes: int = 0

    def arrived(self, request: Request) -> None:
        self.requests += 1
        self.last.append(request)
        self.kept_bytes += len(request.body)
        while len(self.last) > _KEPT_REQUESTS or (self.kept_bytes > _KEPT_BYTES and len(self.last) > 1):
            self.kept_bytes -= len(self.last.popleft().body)

    def recent(self) -> list[dict[str, Any]]:
        """The last requests, oldest first; a body that is not JSON is shown as text."""
        return [
            {"method": r.method, "path": r.path, "headers": dict(r.headers), "body": _shown(r.body)}
            for r in self.last
        ]


def _shown(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
