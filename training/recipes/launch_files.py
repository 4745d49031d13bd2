"""The settings of DeepSpeed and accelerate that a launch needs, written beside the recipe."""

from collections.abc import Mapping
from types import MappingProxyType

from training.recipes.place import Machine
from training.recipes.recipe import DeepSpeed, Launch
from training.recipes.run_settings import RunSettings
from training.recipes.yaml_lines import written

_FP16: Mapping[str, object] = MappingProxyType(
    {
        "enabled": "auto",
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1,
    }
)
"""0 is a dynamic loss scale, which begins at 2 to the power of 16."""


def deepspeed_config(deepspeed: DeepSpeed) -> dict[str, object]:
    """DeepSpeed's settings; "auto" is filled in by transformers from the recipe."""
    zero: dict[str, object] = {"stage": deepspeed.stage, "contiguous_gradients": True, "overlap_comm": False}
    if deepspeed.stage in {1, 2}:
        zero |= {
            "allgather_partitions": True,
            "allgather_bucket_size": 500_000_000,
            "reduce_scatter": True,
            "reduce_bucket_size": 500_000_000,
            "round_robin_gradients": True,
        }
    if deepspeed.stage == 3:
        zero |= {
            "sub_group_size": 1_000_000_000,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if deepspeed.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if deepspeed.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": "auto"},
        "fp16": dict(_FP16),
        "zero_optimization": zero,
    }


def accelerate_text(launch: Launch, run: RunSettings, machine: Machine) -> str:
    """The file for `accelerate launch --config_file`: plain data parallelism over all processes."""
    on_cpu = bool(run.use_cpu) or not machine.gpus
    return written(
        {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": "MULTI_GPU" if launch.world > 1 else "NO",
            "num_machines": launch.nodes,
            "num_processes": launch.world,
            "machine_rank": machine.node_rank,
            "main_process_ip": machine.master_addr,
            "main_process_port": machine.master_port,
            "main_training_function": "main",
            "mixed_precision": "bf16" if run.bf16 else "fp16" if run.fp16 else "no",
            "rdzv_backend": "static",
            "same_network": True,
            "use_cpu": on_cpu,
            "downcast_bf16": "no",
            "debug": False,
        }
    )
