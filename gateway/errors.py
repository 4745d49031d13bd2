"""What can go wrong in the gateway, first forked by whose fault it is.

    GatewayError
    ├── ClientFault        the request cannot be served as it stands
    │   ├── BadRequest         malformed, or a parameter out of place
    │   ├── TooLarge           the body is over the limit
    │   ├── BodyEncoded        the body is compressed
    │   ├── BodyStalled        the body stopped coming
    │   ├── HeadTooLarge       the headers are over the limit
    │   ├── HeadStalled        the headers did not come to their end in time
    │   ├── UnknownModel       no node serves it
    │   ├── NoSuchItem         the conversation has no such item
    │   ├── ClientStalled      it does not read its answer
    │   └── EngineRefused      the node's engine says that the request is at fault
    ├── Interrupted        a newer message of the same conversation took its place
    ├── OutOfTime          the answer was not complete within the total deadline
    ├── CannotServe        nobody's fault that a retry later would not mend
    │   ├── NodesDown          every node that serves the model is away
    │   ├── NodesFull          every node that serves the model is at its cap, and the wait is too long
    │   └── Draining           the gateway is shutting down
    ├── NotSetUp           this gateway was started without what the request asks for
    ├── OperatorFault      the process cannot run as it was started
    │   ├── BadOption          an option of a command makes no sense
    │   └── CannotListen       a port is taken
    └── NodeFault          a node did not do its part
        ├── NodeRefused        no connection
        ├── NodeSilent         nothing came within the deadline
        ├── NodeBroke          the connection or its bytes broke
        └── NodeBusy           it is at capacity: load, not failure

How each looks to a client is the business of `api.envelope`.
"""


class GatewayError(Exception):
    """The root of everything this package raises on purpose."""


class ClientFault(GatewayError):
    """The request is at fault."""


class BadRequest(ClientFault):
    """`param` names the field; `code` is OpenAI's machine-readable reason where there is one."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class TooLarge(ClientFault):
    """The body is larger than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"body over {limit} bytes")
        self.limit = limit


class BodyEncoded(ClientFault):
    """The body came in a `content-encoding`, which is not undone here."""

    def __init__(self, encoding: str) -> None:
        super().__init__(f"content-encoding '{encoding}' is not supported: send the body as it is")


class BodyStalled(ClientFault):
    """Nothing of the body came for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"nothing of the body came for {seconds:g} s")


class HeadTooLarge(ClientFault):
    """Request line and headers, or what follows a body, are larger than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's headers are larger than {limit} bytes")


class HeadStalled(ClientFault):
    """The headers were not complete `seconds` after their first byte."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request's headers were not complete within {seconds:g} s")


class UnknownModel(ClientFault):
    """No node serves this model."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


class NoSuchItem(ClientFault):
    """What the request names within a conversation is not there; `param` names where the request does."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ClientStalled(ClientFault):
    """The client has stopped reading its answer, and a node cannot be held up for it for ever."""


class EngineRefused(ClientFault):
    """The engine refused the request with a 4xx; its message is passed on."""

    def __init__(self, message: str, *, status: int, code: str | None, param: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class Interrupted(GatewayError):
    """A newer message came with `on_busy: restart`; both are answered together, there."""


class OutOfTime(GatewayError):
    """The answer was not complete within `seconds`, all nodes tried included."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the answer was not complete within {seconds:g} s")


class CannotServe(GatewayError):
    """Nothing is wrong with the request; `retry_after_ms` says when it makes sense to come back."""

    def __init__(self, message: str, *, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class NodesDown(CannotServe):
    """Every node that serves the model is away or draining."""


class NodesFull(CannotServe):
    """Every node that serves the model is at its cap, and there is no place in line or no time left."""


class Draining(CannotServe):
    """The gateway is shutting down, and this answer outlasted the time it had for that."""

    def __init__(self) -> None:
        super().__init__("the gateway is shutting down; send the request again")


class NotSetUp(GatewayError):
    """This gateway was started without what the request asks for; the text says what to set."""


class OperatorFault(GatewayError):
    """The process cannot run as it was started; the text says what to change."""


class BadOption(OperatorFault):
    """An option of a command makes no sense."""


class CannotListen(OperatorFault):
    """A port is taken, or not ours to take."""


class NodeFault(GatewayError):
    """A node did not do its part."""


class NodeRefused(NodeFault):
    """No connection to the node."""


class NodeSilent(NodeFault):
    """Nothing came from the node within the deadline."""


class NodeBroke(NodeFault):
    """The connection or its bytes broke."""


class NodeBusy(NodeFault):
    """The node is at capacity; `retry_after_ms` is what it asked for, or a guess."""

    def __init__(self, message: str, *, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms
