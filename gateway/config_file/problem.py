"""A mistake in the configuration, said so that its author can find and mend it."""

from collections.abc import Sequence

import msgspec

from gateway.errors import GatewayError


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with the setting at `path`; `source` says where that was written, as far as is known."""

    path: str
    message: str
    source: str = ""

    def __str__(self) -> str:
        place = f"{self.path} ({self.source})" if self.path and self.source else self.path or self.source
        return f"{place}: {self.message}" if place else self.message


class InvalidConfig(GatewayError):
    """Every mistake that was found in the settings, whose file is at `place` if they have one."""

    def __init__(self, problems: Sequence[Problem], place: str = "") -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{place or 'the configuration'} has {count}:{lines}")
        self.problems = tuple(problems)
