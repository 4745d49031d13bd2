"""How much memory of each GPU a recipe takes, estimated; a guide, not a promise.

Ψ is the number of trained parameters, N the number of GPUs. Sources:

    states       Rajbhandari et al. 2020, "ZeRO", section 3: mixed-precision Adam holds 2Ψ bytes of weights,
                 2Ψ of gradients, 12Ψ of optimiser (32-bit copy, momentum, variance). Stage 1 divides the
                 last by N, stage 2 the gradients too, stage 3 the weights too. Without DeepSpeed
                 LLaMA-Factory keeps trained weights in 32 bits: 4Ψ + 4Ψ + 8Ψ, the same sum, undivided.
    frozen       under an adapter 2 bytes for each parameter of the model; stage 3 divides them, too.
    few bits     Dettmers et al. 2023, "QLoRA", section 3: 4 bits and 0.127 of constants for each linear
                 weight (0.5 without double quantisation); embeddings stay in 16 bits.
    activations  counted like Korthikanti et al. 2022, "Reducing Activation Recomputation", section 4.1, for
                 RMSNorm, a gated MLP and flash attention, without dropout: a layer keeps, for each token,
                 2 bytes of 4 hidden + 2 queries + 2 keys + 4 intermediate. With checkpointing (the default of
                 LLaMA-Factory) each layer keeps its input, 2 hidden, and one layer at a time is recomputed.
    logits       for each token 2 + 4 + 4 bytes of the vocabulary: 16-bit, 32-bit, and the gradient.
    rest         1.5 GiB for the CUDA context and the buffers of NCCL: our own rule of thumb. Stage 3 gathers
                 up to 10^9 parameters at once (`stage3_max_live_parameters`).
"""

import msgspec

from training.recipes.batches import PER_DEVICE
from training.recipes.case import CUTOFF, Case
from training.recipes.faults import ShapeUnknown
from training.recipes.recipe import Recipe
from training.recipes.shape import Shape

GIB = 2**30
RANK = 8
"""LLaMA-Factory's default of lora_rank."""
_REST = 1.5 * GIB
_LIVE = 1_000_000_000
_CONSTANTS = 0.127
_CONSTANTS_PLAIN = 0.5


class Memory(msgspec.Struct, frozen=True):
    """Bytes on each GPU, at the worst: every example as long as cutoff_len."""

    trained: float
    """Parameters that are trained."""
    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    rest: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.rest

    def verdict(self, gpu_gib: float) -> str:
        """A warning where it does not fit; empty where it does, with a tenth to spare."""
        need = self.total / GIB
        if need <= 0.9 * gpu_gib:
            return ""
        sure = "does not fit" if need > gpu_gib else "hardly fits"
        return (
            f"about {need:.1f} GiB on each GPU {sure} into {gpu_gib:g} GiB: smaller "
            "per_device_train_batch_size or cutoff_len, a higher launch.deepspeed.stage, more GPUs, or an "
            "adapter (quantization_bit: 4)"
        )


def memory(recipe: Recipe, shape: Shape) -> Memory:
    """What the recipe takes of each GPU for a model of this shape. Raises ShapeUnknown if it cannot tell."""
    case = Case(recipe)
    trained = _trained(case, shape)
    stage, world = case.zero or 0, recipe.launch.world
    adapted = case.finetuning == "lora"
    frozen = _frozen(case, shape) if adapted else 0.0
    states = (2.0, 2.0, 12.0) if case.zero is not None else (4.0, 4.0, 8.0)
    if recipe.settings.method.pure_bf16:
        states = (2.0, 2.0, 4.0)
    offload = "none" if recipe.launch.deepspeed is None else recipe.launch.deepspeed.offload
    divided = [world if stage >= needed else 1 for needed in (3, 2, 1)]
    here = (offload != "all", True, offload == "none")
    weights, gradients, optimizer = (
        trained * size / by * kept for size, by, kept in zip(states, divided, here, strict=True)
    )
    frozen = frozen / divided[0] * here[0]
    reference = 2.0 * shape.parameters / divided[0] if case.stage == "dpo" and not adapted else 0.0
    live = 2.0 * min(_LIVE, shape.parameters) if stage == 3 else 0.0
    activations, logits = _activations(case, shape)
    return Memory(
        trained, weights + frozen + reference, gradients, optimizer, activations, logits, _REST + live
    )


def _trained(case: Case, shape: Shape) -> float:
    method = case.recipe.settings.method
    if any((method.use_galore, method.use_apollo, method.use_badam, method.use_adam_mini, method.use_muon)):
        raise ShapeUnknown("no estimate for another optimiser than Adam")
    if case.finetuning == "full":
        return float(shape.parameters)
    if case.finetuning == "lora":
        return float(shape.adapter(method.lora_rank or RANK, method.lora_target or "all"))
    raise ShapeUnknown(f"no estimate for finetuning_type {case.finetuning}")


def _frozen(case: Case, shape: Shape) -> float:
    """Bytes of the model under an adapter, undivided."""
    settings = case.recipe.settings.model
    if settings.quantization_bit is None:
        return 2.0 * shape.parameters
    constants = _CONSTANTS if settings.double_quantization is not False else _CONSTANTS_PLAIN
    bits = settings.quantization_bit + (constants if settings.quantization_bit == 4 else 0.0)
    return 2.0 * shape.embeddings + (shape.parameters - shape.embeddings) * bits / 8


def _activations(case: Case, shape: Shape) -> tuple[float, float]:
    settings = case.recipe.settings
    sequences = settings.run.per_device_train_batch_size or PER_DEVICE
    if case.stage == "dpo":
        sequences *= 2  # the better and the worse answer run together
    tokens = sequences * (settings.data.cutoff_len or CUTOFF)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = 2.0 * (4 * shape.hidden + 2 * queries + 2 * keys + 4 * shape.intermediate)
    if settings.model.flash_attn == "disabled":
        layer += 5.0 * shape.heads * (settings.data.cutoff_len or CUTOFF)
    if settings.model.disable_gradient_checkpointing:
        kept = shape.layers * layer
    else:
        kept = shape.layers * 2.0 * shape.hidden + layer
    return tokens * kept, tokens * 10.0 * shape.vocabulary
