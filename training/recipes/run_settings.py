"""The settings of transformers 5.6's trainer that a recipe may have, each with its type.

LLaMA-Factory 0.9.5 takes its training arguments from there and adds a few (hparams/training_args.py).
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from training.recipes.model_settings import NotNegative, Positive, Rate, Share, Steps, Text

When = Literal["no", "steps", "epoch"]
Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
]
"""`SchedulerType` of transformers 5.6."""


class RunSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How long, how fast, in which numbers, and what is written down meanwhile."""

    do_train: Literal[True] | None = None
    do_eval: bool | None = None
    per_device_train_batch_size: Positive | None = None
    per_device_eval_batch_size: Positive | None = None
    gradient_accumulation_steps: Positive | None = None
    eval_accumulation_steps: Positive | None = None
    num_train_epochs: Rate | None = None
    max_steps: int | None = None
    """Above 0 it counts instead of num_train_epochs."""
    learning_rate: Rate | None = None
    lr_scheduler_type: Scheduler | None = None
    lr_scheduler_kwargs: dict[str, float | bool | str] | None = None
    warmup_steps: NotNegative | None = None
    """Below 1 a share of all steps."""
    optim: Text | None = None
    optim_args: Text | None = None
    weight_decay: NotNegative | None = None
    adam_beta1: Share | None = None
    adam_beta2: Share | None = None
    adam_epsilon: Rate | None = None
    max_grad_norm: NotNegative | None = None
    label_smoothing_factor: Share | None = None
    neftune_noise_alpha: NotNegative | None = None
    bf16: bool | None = None
    fp16: bool | None = None
    tf32: bool | None = None
    fp8: bool | None = None
    use_cpu: bool | None = None
    gradient_checkpointing: bool | None = None
    torch_compile: bool | None = None
    torch_empty_cache_steps: Positive | None = None
    logging_strategy: When | None = None
    logging_steps: Steps | None = None
    logging_first_step: bool | None = None
    include_num_input_tokens_seen: bool | Literal["all", "non_padding", "no"] | None = None
    log_level: Literal["debug", "info", "warning", "error", "critical", "passive"] | None = None
    disable_tqdm: bool | None = None
    eval_strategy: When | None = None
    eval_steps: Steps | None = None
    eval_delay: NotNegative | None = None
    eval_on_start: bool | None = None
    save_strategy: Literal["no", "steps", "epoch", "best"] | None = None
    save_steps: Steps | None = None
    save_total_limit: Positive | None = None
    enable_jit_checkpoint: bool | None = None
    """Save a whole checkpoint when the run is paused (one process)."""
    save_only_model: bool | None = None
    save_on_each_node: bool | None = None
    load_best_model_at_end: bool | None = None
    metric_for_best_model: Text | None = None
    greater_is_better: bool | None = None
    seed: Annotated[int, Meta(ge=0, lt=2**32)] | None = None
    data_seed: Annotated[int, Meta(ge=0, lt=2**32)] | None = None
    full_determinism: bool | None = None
    dataloader_num_workers: Annotated[int, Meta(ge=0)] | None = None
    dataloader_pin_memory: bool | None = None
    dataloader_persistent_workers: bool | None = None
    dataloader_prefetch_factor: Positive | None = None
    dataloader_drop_last: bool | None = None
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] | None = None
    ddp_timeout: Positive | None = None
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl"] | None = None
    ddp_find_unused_parameters: bool | None = None
    ddp_bucket_cap_mb: Positive | None = None
    ddp_static_graph: bool | None = None
