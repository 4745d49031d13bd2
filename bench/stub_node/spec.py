"""What one stub node is: the engine it plays, its cache, its speed and its limits."""

from dataclasses import dataclass
from typing import Literal, get_args

EngineName = Literal["vllm", "sglang", "openai"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
LACKS = ("prefix_caching", "cache_report", "priority", "roles", "thoughts", "turns")

_OWN_BLOCK_SIZE: dict[EngineName, int] = {"vllm": 16, "sglang": 1, "openai": 1}
_OWN_VERSION: dict[EngineName, str] = {"vllm": "0.32.0", "sglang": "0.5.23", "openai": "b0-stub"}
_DEFAULT_CAPACITY_TOKENS = 131_072


@dataclass(frozen=True, slots=True, kw_only=True)
class StubSpec:
    """The traits of a stub node. `openai` plays llama.cpp.

    Units: `block_size` and `context_length` in tokens, `blocks` in blocks, rates in tokens a second,
    `keep_alive` and `health_delay` in seconds. Zero means: the engine's own block size, 131,072 tokens of
    cache, instant prefill or decode, no limit on the waiting queue, no API key. `lacks`, with commas between,
    is what the engine was started without, of `LACKS`. With a `kv_port` the cache's events are published
    there and repeated one port further; 0 takes free ones.

    Raises ValueError when a trait is out of range, or when the cache cannot hold one full context.
    """

    engine: EngineName = "vllm"
    model: str = "stub"
    block_size: int = 0
    blocks: int = 0
    context_length: int = 8192
    prefill_rate: float = 0.0
    decode_rate: float = 0.0
    max_running: int = 256
    max_waiting: int = 0
    answer_tokens: int = 24
    embedding_size: int = 64
    api_key: str = ""
    keep_alive: float = 5.0
    health_delay: float = 0.0
    lacks: str = ""
    version: str = ""
    kv_port: int = -1

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}; use one of {', '.join(ENGINES)}")
        for name in ("block_size", "blocks", "prefill_rate", "decode_rate", "max_waiting", "health_delay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; use 0 or more")
        if unknown := {one for one in self.lacks.split(",") if one} - set(LACKS):
            raise ValueError(f"lacks is {', '.join(sorted(unknown))}; use some of {', '.join(LACKS)}")
        for name in ("context_length", "max_running", "answer_tokens", "embedding_size", "keep_alive"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; use more than 0")
        if self.capacity * self.block < self.context_length:
            raise ValueError(
                f"{self.capacity} blocks of {self.block} tokens cannot hold a context of "
                f"{self.context_length} tokens; raise blocks or lower context_length"
            )

    def has(self, trait: str) -> bool:
        """Whether the engine was started with it."""
        return trait not in self.lacks.split(",")

    @property
    def engine_version(self) -> str:
        """What it says of itself."""
        return self.version or _OWN_VERSION[self.engine]

    @property
    def block(self) -> int:
        """Tokens in one cache block."""
        return self.block_size or _OWN_BLOCK_SIZE[self.engine]

    @property
    def capacity(self) -> int:
        """Blocks in the cache."""
        return self.blocks or _DEFAULT_CAPACITY_TOKENS // self.block
