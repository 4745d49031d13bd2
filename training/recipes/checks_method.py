"""Checks of what is trained and by which method.

What cannot go together is LLaMA-Factory 0.9.5's (hparams/parser.py), and refused there after the imports.
"""

from collections.abc import Iterator

from training.datasets.lengths import cutoff_problem
from training.recipes.case import CUTOFF, Case
from training.recipes.templates import unknown

_OF_LORA = (
    "lora_alpha",
    "lora_dropout",
    "lora_rank",
    "lora_target",
    "loraplus_lr_ratio",
    "loraplus_lr_embedding",
    "use_rslora",
    "use_dora",
    "pissa_init",
    "pissa_iter",
    "pissa_convert",
)
_OF_OFT = ("oft_rank", "oft_block_size", "oft_target", "module_dropout")
_OF_FREEZE = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")
_OF_BOTH = ("additional_target", "create_new_adapter")
_BELONGS = (
    (_OF_LORA, frozenset({"lora"})),
    (_OF_OFT, frozenset({"oft"})),
    (_OF_FREEZE, frozenset({"freeze"})),
    (_OF_BOTH, frozenset({"lora", "oft"})),
)


def model(case: Case) -> Iterator[str]:
    """Which model."""
    settings = case.recipe.settings.model
    if not (settings.model_name_or_path or case.base_model):
        yield "model_name_or_path is missing: the model's folder, or its name on the hub"
    for key, path in (
        ("model_name_or_path", settings.model_name_or_path),
        ("adapter_name_or_path", settings.adapter_name_or_path),
        ("cache_dir", settings.cache_dir),
    ):
        if path is not None and path.startswith("~"):
            yield f"{key} begins with ~, which nobody expands: write the path out"
    if settings.adapter_name_or_path and case.finetuning != "lora":
        yield f"adapter_name_or_path is for finetuning_type lora, not {case.finetuning}: leave it out"


def template(case: Case) -> Iterator[str]:
    """How turns become text, which serving has to do in the same way."""
    name = case.recipe.settings.data.template
    if name is None:
        yield "template is missing: LLaMA-Factory would guess, and training see other prompts than serving"
    elif wrong := unknown(name, case.recipe.accept.templates):
        yield wrong


def cutoff(case: Case) -> Iterator[str]:
    """What is beyond cutoff_len is cut from the prompt in silence."""
    length = case.recipe.settings.data.cutoff_len or CUTOFF
    if case.prepared is None or case.recipe.accept.short_cutoff:
        return
    if problem := cutoff_problem(length, case.prepared.longest_prompt):
        yield f"{problem}; or accept: {{short_cutoff: true}}"


def belonging(case: Case) -> Iterator[str]:
    """Settings of another method have no effect; who wrote them believes otherwise."""
    method = case.recipe.settings.method
    for keys, types in _BELONGS:
        there = [key for key in keys if getattr(method, key) is not None]
        if there and case.finetuning not in types:
            yield f"{', '.join(there)}: no effect with finetuning_type {case.finetuning}; leave them out"


def quantization(case: Case) -> Iterator[str]:
    """A model in few bits is trained by adapters only."""
    settings = case.recipe.settings.model
    if settings.quantization_bit is None:
        return
    if case.finetuning not in {"lora", "oft"}:
        yield f"quantization_bit needs finetuning_type lora or oft, not {case.finetuning}"
    if case.zero == 3 and settings.quantization_bit != 4:
        yield "quantization_bit must be 4 under DeepSpeed stage 3; or use stage 2"
    if settings.resize_vocab:
        yield "resize_vocab is not possible with quantization_bit"
    if case.recipe.settings.method.pissa_init:
        yield "pissa_init is not possible with quantization_bit"
    if settings.adapter_name_or_path and case.recipe.settings.method.create_new_adapter:
        yield "create_new_adapter is not possible upon adapter_name_or_path with quantization_bit"


def counting(case: Case) -> Iterator[str]:
    """The trainer has to say as many examples as were written: that is how lost ones are found."""
    data = case.recipe.settings.data
    for key in ("max_samples", "val_size", "packing", "neat_packing"):
        if getattr(data, key):
            yield f"{key} changes how many examples there are, by which lost ones are found: leave it out"


def stage(case: Case) -> Iterator[str]:
    """What the examples are: dialogues for sft, pairs for dpo."""
    data = case.recipe.settings.data
    wanted = {"supervised": "sft", "dpo": "dpo"}.get(case.method or "")
    if wanted is not None and case.stage != wanted:
        yield f"stage is {case.stage}, the job's method {case.method} needs a recipe with stage: {wanted}"
    if case.stage != "sft":
        for key in ("mask_history", "train_on_prompt"):
            if getattr(data, key):
                yield f"{key} is for stage sft, not {case.stage}: leave it out"
    if data.mask_history and data.train_on_prompt:
        yield "mask_history and train_on_prompt exclude each other"


def preferences(case: Case) -> Iterator[str]:
    """Settings of the losses over pairs."""
    method = case.recipe.settings.method
    if case.stage != "dpo" and (method.pref_loss is not None or method.dpo_label_smoothing):
        yield f"pref_loss and dpo_label_smoothing are for stage dpo, not {case.stage}"
    if case.stage not in {"dpo", "kto"} and method.pref_beta is not None:
        yield f"pref_beta is for stage dpo or kto, not {case.stage}"
    if method.dpo_label_smoothing and (method.pref_loss or "sigmoid") != "sigmoid":
        yield "dpo_label_smoothing is for pref_loss sigmoid only"
    if method.pissa_init and case.stage in {"dpo", "kto"}:
        yield f"pissa_init is not possible in stage {case.stage}"


def optimisers(case: Case) -> Iterator[str]:
    """Optimisers that save memory, and what they cannot be combined with."""
    method = case.recipe.settings.method
    used = [key for key in ("use_galore", "use_apollo", "use_badam") if getattr(method, key)]
    if len(used) > 1:
        yield f"{' and '.join(used)} exclude each other"
    if used and case.finetuning == "lora":
        yield f"{used[0]} is not possible with finetuning_type lora"
    if case.zero is not None and (method.use_galore or method.use_apollo):
        yield "use_galore and use_apollo are not possible with DeepSpeed"
    if case.zero == 3 and method.pure_bf16:
        yield "pure_bf16 is not possible under DeepSpeed stage 3: use bf16"
    if case.zero == 3 and method.pissa_init:
        yield "pissa_init is not possible under DeepSpeed stage 3"
    if case.zero == 3 and case.recipe.settings.model.use_unsloth:
        yield "use_unsloth is not possible under DeepSpeed stage 3"
    if method.use_llama_pro and case.finetuning == "full":
        yield "use_llama_pro is for finetuning_type freeze or lora"
