"""A model's shape, from its config.json: how many parameters it has, and how wide they lie."""

from collections.abc import Mapping

import msgspec

from training.recipes.faults import ShapeUnknown

_ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_BIASED = frozenset({"qwen2"})
"""Model types whose q, k and v projections have a bias that config.json does not name."""
_NORMED = frozenset({"qwen3"})
"""Model types that normalise q and k, head by head."""


class Shape(msgspec.Struct, frozen=True):
    """A decoder of the Llama kind: grouped-query attention, a gated MLP, RMSNorm."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    @property
    def parameters(self) -> int:
        """All of them, embeddings included."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * self.hidden * queries + 2 * self.hidden * keys
        attention += (queries + 2 * keys) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.embeddings + self.layers * layer + self.hidden

    @property
    def embeddings(self) -> int:
        """The table of tokens, twice where the output has one of its own."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapter(self, rank: int, target: str) -> int:
        """Parameters of a LoRA: rank * (in + out) for each matrix. Raises ShapeUnknown for another target."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = dict.fromkeys(("k_proj", "v_proj"), self.hidden + keys)
        sides |= dict.fromkeys(("q_proj", "o_proj"), self.hidden + queries)
        sides |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), self.hidden + self.intermediate)
        wanted = _ADAPTED if target == "all" else tuple(part.strip() for part in target.split(","))
        other = [name for name in wanted if name not in sides]
        if other:
            raise ShapeUnknown(
                f"lora_target {', '.join(other)} is none of {', '.join(_ADAPTED)}: no estimate"
            )
        return self.layers * rank * sum(sides[name] for name in wanted)


class _Config(msgspec.Struct, frozen=True):
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    vocab_size: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    model_type: str = ""


def shape_of(config: bytes) -> Shape:
    """The shape that a config.json gives. Raises ShapeUnknown."""
    try:
        document = msgspec.json.decode(config, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise ShapeUnknown(f"config.json is not readable: {error}") from None
    inner = document.get("text_config")
    if isinstance(inner, Mapping):
        document = {**document, **inner}
    experts = [key for key in document if "expert" in key and document[key]]
    if experts:
        raise ShapeUnknown(f"the model is a mixture of experts ({experts[0]}): no estimate")
    try:
        found = msgspec.convert(document, _Config)
    except msgspec.ValidationError as error:
        raise ShapeUnknown(f"config.json is not that of a decoder of the Llama kind: {error}") from None
    return _shape(found)


def _shape(found: _Config) -> Shape:
    counts = (found.hidden_size, found.num_hidden_layers, found.num_attention_heads, found.vocab_size)
    if min(*counts, found.intermediate_size) < 1:
        raise ShapeUnknown("config.json has sizes below 1")
    return Shape(
        hidden=found.hidden_size,
        layers=found.num_hidden_layers,
        intermediate=found.intermediate_size,
        heads=found.num_attention_heads,
        kv_heads=found.num_key_value_heads or found.num_attention_heads,
        head_dim=found.head_dim or found.hidden_size // found.num_attention_heads,
        vocabulary=found.vocab_size,
        tied=found.tie_word_embeddings,
        qkv_bias=found.attention_bias or found.model_type in _BIASED,
        qk_norm=found.model_type in _NORMED,
    )
