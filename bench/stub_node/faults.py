"""The ways in which a node can be made to fail, switched on and off while it runs.

A fault applies to inference requests, so that probes of a router neither meet it nor use it up; with a
`path` it applies to everything under that path instead ("/" is all but /stub/), with a `text` only to
requests whose body has it as it stands. It strikes after the first
`skip` requests that it applies to, `times` times (for ever if `times` is null). For one request the first
fault in the list that strikes is taken; a fault that does not strike yet or any more counts nothing for
those after it.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from bench.stub_node.refusal import Refusal, Refused

FaultKind = Literal[
    "slow_headers",
    "silence",
    "cut_after_chunks",
    "stall_after_chunks",
    "broken_chunk_after",
    "status",
    "refuse",
    "http200_error_first_event",
]
MID_STREAM: frozenset[FaultKind] = frozenset({"cut_after_chunks", "stall_after_chunks", "broken_chunk_after"})


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One switch.

    - slow_headers: the request is taken up only after `seconds`
    - silence: the request is accepted and never answered
    - cut_after_chunks: the connection is dropped after `chunks` events (or in mid-body, when not streaming)
    - stall_after_chunks: nothing more is sent after `chunks` events, and the connection stays open
    - broken_chunk_after: after `chunks` events comes one data line that is not JSON, then the rest
    - status: `status` with `body` (the engine's own error if null) and `headers`
    - refuse: the port is closed to new connections until the faults are set anew, on the control port
    - http200_error_first_event: a stream that begins with 200 and an error event, as SGLang's full queue does
      (or `body`)
    """

    kind: FaultKind
    path: str = ""
    text: str = ""
    times: int | None = None
    skip: int = 0
    seconds: float = 0.0
    chunks: int = 0
    status: int = 503
    body: msgspec.Raw = msgspec.Raw(b"null")
    headers: dict[str, str] = {}


class Faults:
    """The switches of one node, each with the number of requests that it has seen."""

    def __init__(self) -> None:
        self._switches: list[tuple[Fault, list[int]]] = []

    def set(self, faults: Iterable[Fault]) -> None:
        """Replace all switches. Raises Refused when one makes no sense."""
        wanted = list(faults)
        for fault in wanted:
            if fault.kind == "refuse" and (fault.times is not None or fault.skip):
                raise Refused(
                    Refusal(400, "bad_request", "refuse closes the port: it takes neither times nor skip")
                )
        self._switches = [(fault, [0]) for fault in wanted]

    @property
    def current(self) -> list[Fault]:
        return [fault for fault, _ in self._switches]

    @property
    def refusing(self) -> bool:
        return any(fault.kind == "refuse" for fault, _ in self._switches)

    def take(self, path: str, *, inference: bool, body: bytes = b"") -> Fault | None:
        """The fault that a request to `path` meets, counted as met."""
        for fault, seen in self._switches:
            applies = path.startswith(fault.path) if fault.path else inference
            applies = applies and fault.text.encode() in body
            if fault.kind == "refuse" or not applies or path.startswith("/stub/"):
                continue
            if fault.times is not None and seen[0] >= fault.skip + fault.times:
                continue
            seen[0] += 1
            if seen[0] > fault.skip:
                return fault
        return None
