"""A request that the node does not serve: the fact, which each engine words and wraps in its own way."""

from dataclasses import dataclass
from typing import Literal

RefusalKind = Literal[
    "bad_body",
    "bad_request",
    "user_input",
    "unknown_model",
    "too_long",
    "queue_full",
    "unauthorized",
    "no_route",
    "fault",
]


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    kind: RefusalKind
    message: str
    param: str | None = None
    prompt_tokens: int = 0
    context_length: int = 0


class Refused(Exception):
    """Carries a refusal from where it is found to where it is answered."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
