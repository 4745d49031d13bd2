"""What tells one run of an engine from the next: after a restart its cache is empty.

Engines say so in one of three ways, if at all: the time at which the process began (vLLM), counters that went
back (vLLM, SGLang, llama.cpp), or KV events. Pure.
"""

import msgspec

_ALIKE_S = 2.0
"""The start of a process is worked out from when its machine began, which is not told to the second."""


class EngineRun(msgspec.Struct, frozen=True):
    """How far a run of an engine has come; None is unknown."""

    prompt_tokens: int | None = None
    """Of all prompts since it began."""
    started_at: float | None = None
    """Unix seconds, by its own clock."""

    @property
    def is_known(self) -> bool:
        """Whether there is anything to go by."""
        return self.prompt_tokens is not None or self.started_at is not None

    def then(self, told: "EngineRun") -> "EngineRun":
        """This run, as it was told last; what was not told this time stays known."""
        return EngineRun(
            prompt_tokens=self.prompt_tokens if told.prompt_tokens is None else told.prompt_tokens,
            started_at=self.started_at if told.started_at is None else told.started_at,
        )

    def is_another(self, told: "EngineRun") -> bool:
        """Whether what is told now is of another run."""
        began, begins = self.started_at, told.started_at
        if began is not None and begins is not None and abs(begins - began) > _ALIKE_S:
            return True
        counted, counts = self.prompt_tokens, told.prompt_tokens
        return counted is not None and counts is not None and counts < counted


UNTOLD = EngineRun()
"""Of an engine that was not asked yet."""
