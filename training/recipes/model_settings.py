"""LLaMA-Factory 0.9.5's settings of the model, the data and the method, each with its type.

None is "not set": LLaMA-Factory's own default then counts. What is not here is either set for each job, or
refused with a reason, or unknown (`keys`).
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(gt=0)]
Steps = Annotated[int, Meta(ge=1)] | Annotated[float, Meta(gt=0, lt=1)]
"""So many; below 1 a share of all of them."""
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]


class ModelSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which model is trained, and how it is loaded (hparams/model_args.py)."""

    model_name_or_path: Text | None = None
    adapter_name_or_path: Text | None = None
    cache_dir: Text | None = None
    model_revision: Text | None = None
    use_fast_tokenizer: bool | None = None
    resize_vocab: bool | None = None
    split_special_tokens: bool | None = None
    add_tokens: Text | None = None
    add_special_tokens: Text | None = None
    low_cpu_mem_usage: bool | None = None
    rope_scaling: Literal["linear", "dynamic", "yarn", "llama3"] | None = None
    flash_attn: Literal["auto", "disabled", "sdpa", "fa2", "fa3"] | None = None
    shift_attn: bool | None = None
    use_unsloth: bool | None = None
    use_unsloth_gc: bool | None = None
    enable_liger_kernel: bool | None = None
    moe_aux_loss_coef: NotNegative | None = None
    disable_gradient_checkpointing: bool | None = None
    use_reentrant_gc: bool | None = None
    upcast_layernorm: bool | None = None
    upcast_lmhead_output: bool | None = None
    quantization_method: Literal["bnb", "gptq", "awq", "aqlm", "quanto", "eetq", "hqq"] | None = None
    quantization_bit: Literal[2, 3, 4, 5, 6, 8] | None = None
    quantization_type: Literal["fp4", "nf4"] | None = None
    double_quantization: bool | None = None
    trust_remote_code: bool | None = None


class DataSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How examples become tokens (hparams/data_args.py)."""

    template: Text | None = None
    cutoff_len: Positive | None = None
    train_on_prompt: bool | None = None
    mask_history: bool | None = None
    max_samples: Positive | None = None
    preprocessing_batch_size: Positive | None = None
    preprocessing_num_workers: Positive | None = None
    ignore_pad_token_for_loss: bool | None = None
    val_size: NotNegative | None = None
    packing: bool | None = None
    neat_packing: bool | None = None
    tool_format: Text | None = None
    default_system: str | None = None
    enable_thinking: bool | None = None
    preserve_thinking: bool | None = None
    data_shared_file_system: bool | None = None


class MethodSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is learned, by which method (hparams/finetuning_args.py)."""

    stage: Literal["pt", "sft", "rm", "dpo", "kto"] | None = None
    finetuning_type: Literal["lora", "oft", "freeze", "full"] | None = None
    pure_bf16: bool | None = None
    freeze_trainable_layers: int | None = None
    freeze_trainable_modules: Text | None = None
    freeze_extra_modules: Text | None = None
    additional_target: Text | None = None
    lora_alpha: Positive | None = None
    lora_dropout: Share | None = None
    lora_rank: Positive | None = None
    lora_target: Text | None = None
    loraplus_lr_ratio: Rate | None = None
    loraplus_lr_embedding: Rate | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    pissa_init: bool | None = None
    pissa_iter: int | None = None
    pissa_convert: bool | None = None
    create_new_adapter: bool | None = None
    oft_rank: int | None = None
    oft_block_size: int | None = None
    oft_target: Text | None = None
    module_dropout: Share | None = None
    pref_beta: Rate | None = None
    pref_ftx: NotNegative | None = None
    pref_loss: Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"] | None = None
    dpo_label_smoothing: Annotated[float, Meta(ge=0, lt=0.5)] | None = None
    kto_chosen_weight: Rate | None = None
    kto_rejected_weight: Rate | None = None
    simpo_gamma: NotNegative | None = None
    ref_model: Text | None = None
    ref_model_adapters: Text | None = None
    ref_model_quantization_bit: Literal[4, 8] | None = None
    ld_alpha: Share | None = None
    use_galore: bool | None = None
    galore_target: Text | None = None
    galore_rank: Positive | None = None
    galore_update_interval: Positive | None = None
    galore_scale: Rate | None = None
    galore_layerwise: bool | None = None
    use_apollo: bool | None = None
    apollo_rank: Positive | None = None
    apollo_layerwise: bool | None = None
    use_badam: bool | None = None
    badam_mode: Literal["layer", "ratio"] | None = None
    badam_switch_interval: Positive | None = None
    use_llama_pro: bool | None = None
    use_adam_mini: bool | None = None
    use_muon: bool | None = None
    use_dft_loss: bool | None = None
    freeze_vision_tower: bool | None = None
    freeze_multi_modal_projector: bool | None = None
    freeze_language_model: bool | None = None
    compute_accuracy: bool | None = None
    disable_shuffling: bool | None = None
    early_stopping_steps: Positive | None = None
    plot_loss: bool | None = None
    include_effective_tokens_per_second: bool | None = None
