"""What a node's hardware can do: the figures behind every simulated second.

    decode step    t_step = weights_s + requests * per_request_s + context_tokens * kv_read_s
    mixed step     t_step + chunk * prefill_s, of which `chunk` tokens are prefill and one per request decode
    prefill work   u * (1 + (cached + u / 2) / attention_tokens)   for u uncached tokens behind `cached`

Compute at half of the peak, memory at 0.8 of it, as is usual for sound engines. Qwen2.5-7B in bf16: 15.2 GB
of weights, 2 * 7.6e9 operations a token, 56 KiB of KV a token, attention as costly as all else at 38,000
tokens.
"""

import msgspec


class Card(msgspec.Struct, frozen=True):
    """One node: a card, or several that serve one model together."""

    name: str
    kv_tokens: int
    """Tokens that its KV cache holds."""
    prefill_s: float
    """Seconds of computing per uncached token."""
    weights_s: float
    """Seconds to read the weights once: the shortest step."""
    kv_read_s: float
    """Seconds to read one token's KV."""
    per_request_s: float = 0.00002
    """Sampling and scheduling, per request and step."""
    chunk: int = 2048
    """Prefill tokens per step."""
    max_running: int = 256
    attention_tokens: int = 38_000
    block: int = 16

    def blocks(self) -> int:
        """Blocks of its KV cache."""
        return self.kv_tokens // self.block

    def prefill_work(self, cached: int, uncached: int) -> float:
        """An uncached part in tokens of no context."""
        return uncached * (1 + (cached + uncached / 2) / self.attention_tokens)

    def step_s(self, requests: int, context_tokens: float) -> float:
        """One decode step."""
        return self.weights_s + requests * self.per_request_s + context_tokens * self.kv_read_s


# 989 TFLOP/s, 3.35 TB/s; 80 GB * 0.9 less weights and 2.5 GB of activations.
H100_7B = Card(
    name="H100, 7B",
    kv_tokens=947_000,
    prefill_s=15.2e9 / 494e12,
    weights_s=0.0057,
    kv_read_s=57_344 / 2.68e12,
)
# 70 TFLOP/s, 0.6 TB/s; 24 GB * 0.9 less weights and 1.2 GB.
A10G_7B = Card(
    name="A10G, 7B", kv_tokens=90_000, prefill_s=15.2e9 / 35e12, weights_s=0.0317, kv_read_s=57_344 / 0.48e12
)
CARDS = {"h100": H100_7B, "a10g": A10G_7B}
