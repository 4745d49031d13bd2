"""Everything that is refused before a GPU is touched, each with the words that say what to do."""

from pathlib import Path

import pytest

from training.ports import Prepared
from training.recipes.case import Case
from training.recipes.checks import checked, problems, warnings
from training.recipes.faults import BadRecipe
from training.recipes.place import Machine
from training.recipes.recipe import read_recipe

WHOLE = "model_name_or_path: /m, template: qwen"
GPU = Machine(gpus=("0",))
CPU = Machine()


def prepared(*, evaluation: str = "", longest_prompt: int = 100, examples: int = 1000) -> Prepared:
    return Prepared(Path("/d"), "train", evaluation, examples, longest_prompt)


def case(settings: str = "", rest: str = "", **known: object) -> Case:
    inside = ", ".join(filter(None, (WHOLE, settings)))
    return Case(read_recipe(f"settings: {{{inside}}}\n{rest}", name="mine"), **known)  # type: ignore[arg-type]


def test_nothing_is_wrong_with_a_whole_recipe() -> None:
    assert problems(case(prepared=prepared(), machine=GPU, method="supervised")) == ()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            "adapter_name_or_path: /a, finetuning_type: full",
            "adapter_name_or_path is for finetuning_type lora",
        ),
        ("cache_dir: ~/x", "cache_dir begins with ~"),
        ("finetuning_type: full, lora_rank: 8, lora_target: all", "lora_rank, lora_target: no effect"),
        ("finetuning_type: lora, freeze_trainable_layers: 2", "freeze_trainable_layers: no effect"),
        ("finetuning_type: lora, oft_rank: 2", "oft_rank: no effect"),
        ("finetuning_type: full, create_new_adapter: true", "create_new_adapter: no effect"),
        ("finetuning_type: full, quantization_bit: 4", "quantization_bit needs finetuning_type lora"),
        ("quantization_bit: 4, resize_vocab: true", "resize_vocab is not possible"),
        ("quantization_bit: 4, pissa_init: true", "pissa_init is not possible with quantization_bit"),
        (
            "quantization_bit: 4, adapter_name_or_path: /a, create_new_adapter: true",
            "create_new_adapter is not",
        ),
        ("stage: dpo, mask_history: true", "mask_history is for stage sft"),
        ("stage: dpo, train_on_prompt: true", "train_on_prompt is for stage sft"),
        ("max_samples: 10", "max_samples changes how many"),
        ("val_size: 0.1", "val_size changes how many"),
        ("packing: true", "packing changes how many"),
        ("neat_packing: true", "neat_packing changes how many"),
        ("mask_history: true, train_on_prompt: true", "exclude each other"),
        ("pref_beta: 0.1", "pref_beta is for stage dpo or kto"),
        ("pref_loss: orpo", "pref_loss and dpo_label_smoothing are for stage dpo"),
        ("stage: dpo, pref_loss: orpo, dpo_label_smoothing: 0.1", "for pref_loss sigmoid only"),
        ("stage: dpo, pissa_init: true", "pissa_init is not possible in stage dpo"),
        ("finetuning_type: full, use_galore: true, use_badam: true", "use_galore and use_badam exclude"),
        ("use_galore: true", "use_galore is not possible with finetuning_type lora"),
        ("finetuning_type: full, use_llama_pro: true", "use_llama_pro is for"),
        ("bf16: true, fp16: true", "bf16 and fp16 exclude each other"),
        ("use_cpu: true, fp16: true", "fp16 is not possible with use_cpu"),
        ("use_cpu: true, pure_bf16: true", "pure_bf16 is not possible with use_cpu"),
        ("eval_steps: 10", "eval_steps: no effect without eval_strategy"),
        ("early_stopping_steps: 3", "needs load_best_model_at_end"),
        ("load_best_model_at_end: true", "needs eval_strategy to be save_strategy, which is steps"),
        (
            "load_best_model_at_end: true, eval_strategy: steps, eval_steps: 30, save_steps: 100",
            "save_steps (100) to be a multiple",
        ),
        ("save_only_model: true", "save_only_model leaves out the optimiser"),
        ('save_strategy: "no"', 'save_strategy: "no" does not write'),
        ('save_strategy: "best"', 'save_strategy: "best" does not write'),
        ("dataloader_prefetch_factor: 2", "needs dataloader_num_workers"),
        ("dataloader_persistent_workers: true", "needs dataloader_num_workers"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: str, told: str) -> None:
    found = problems(case(settings))

    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    ("settings", "launch", "told"),
    [
        ("", "processes: 2", "2 processes need launch.by: torchrun"),
        ("", "nodes: 2", "2 processes need launch.by: torchrun"),
        ("", "deepspeed: {stage: 2}", "needs launch.by: torchrun"),
        ("", "by: accelerate, deepspeed: {stage: 2}", "needs launch.by: torchrun"),
        ("use_cpu: true", "by: torchrun, deepspeed: {stage: 2}", "launch.deepspeed is for GPUs"),
        ("", "by: torchrun, deepspeed: {stage: 2, offload: all}", "offload: all needs stage 3"),
        ("", "by: torchrun, deepspeed: {stage: 0, offload: optimizer}", "needs stage 1, 2 or 3"),
        ("pure_bf16: true", "by: torchrun, deepspeed: {stage: 3}", "pure_bf16 is not possible"),
        ("pissa_init: true", "by: torchrun, deepspeed: {stage: 3}", "pissa_init is not possible"),
        ("use_unsloth: true", "by: torchrun, deepspeed: {stage: 3}", "use_unsloth is not possible"),
        ("quantization_bit: 8", "by: torchrun, deepspeed: {stage: 3}", "must be 4 under DeepSpeed"),
        ("finetuning_type: full, use_apollo: true", "by: torchrun, deepspeed: {stage: 2}", "with DeepSpeed"),
        ("use_cpu: true", "by: accelerate, processes: 2", "accelerate begins one process on a CPU"),
        ("use_unsloth: true", "by: torchrun, processes: 2", "use_unsloth trains on one GPU"),
        ("", "environment: {MASTER_PORT: '1'}", "MASTER_PORT is set from"),
        ("", "environment: {ALLOW_EXTRA_ARGS: '1'}", "pass over settings in silence"),
        ("", "environment: {'A B': '1'}", "'A B' is no variable"),
        ("", 'environment: {A: "1\\n2"}', "'A' is no variable"),
    ],
)
def test_launches_that_cannot_work_are_refused(settings: str, launch: str, told: str) -> None:
    found = problems(case(settings, f"launch: {{{launch}}}"))

    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    ("settings", "machine", "told"),
    [
        ("bf16: true", CPU, "bf16 needs a GPU"),
        ("fp16: true", CPU, "fp16 needs a GPU"),
        ("", CPU, "use_cpu: true where the CPU is meant"),
        ("", Machine(gpus=("0", "1")), "this run got 2"),
        ("", Machine(gpus=("0",), node_rank=1), "rank is 1, of launch.nodes: 1"),
    ],
)
def test_machines_that_do_not_fit_are_refused(settings: str, machine: Machine, told: str) -> None:
    found = problems(case(settings, machine=machine))

    assert len(found) == 1
    assert told in found[0]


def test_half_precision_of_bf16_is_possible_on_a_cpu_that_is_meant() -> None:
    assert problems(case("bf16: true, use_cpu: true", machine=CPU)) == ()


def test_several_nodes_need_the_first_ones_address() -> None:
    launch = "launch: {by: torchrun, nodes: 2}"

    assert "not 127.0.0.1" in problems(case("", launch, machine=GPU))[0]
    assert problems(case("", launch, machine=Machine(gpus=("0",), master_addr="10.0.0.1"))) == ()


def test_evaluation_needs_something_held_out() -> None:
    wanted = "eval_strategy: steps"

    assert "the dataset has none" in problems(case(wanted, prepared=prepared()))[0]
    assert "the dataset has none" in problems(case("do_eval: true", prepared=prepared()))[0]
    assert problems(case(wanted, prepared=prepared(evaluation="held"))) == ()


@pytest.mark.parametrize(
    ("cutoff", "refused"), [("", True), ("cutoff_len: 2999", True), ("cutoff_len: 3000", False)]
)
def test_prompts_are_not_cut_in_silence(cutoff: str, refused: bool) -> None:
    long = prepared(longest_prompt=3000)
    found = problems(case(cutoff, prepared=long))

    assert bool(found) == refused
    assert problems(case(cutoff, "accept: {short_cutoff: true}", prepared=long)) == ()


def test_templates_are_known_or_accepted() -> None:
    def found(template: str, rest: str = "") -> tuple[str, ...]:
        text = f"settings: {{model_name_or_path: /m{template}}}\n{rest}"
        return problems(Case(read_recipe(text, name="mine")))

    assert "template is missing" in found("")[0]
    assert "did you mean smollm2?" in found(", template: smolm2")[0]
    assert found(", template: mine", "accept: {templates: [mine]}") == ()


def test_a_model_is_needed_from_the_recipe_or_the_job() -> None:
    recipe = read_recipe("settings: {template: qwen}", name="mine")

    assert "model_name_or_path is missing" in problems(Case(recipe))[0]
    assert problems(Case(recipe, base_model="/m")) == ()


def test_the_jobs_method_and_the_stage_agree() -> None:
    assert "needs a recipe with stage: dpo" in problems(case("stage: sft", method="dpo"))[0]
    assert "needs a recipe with stage: sft" in problems(case("stage: kto", method="supervised"))[0]
    assert problems(case("stage: dpo", method="dpo")) == ()


def test_all_problems_are_told_together() -> None:
    with pytest.raises(BadRecipe) as fault:
        checked(case("bf16: true, fp16: true, save_only_model: true"))

    assert len(fault.value.problems) == 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("template: default", "no model's own"),
        ("max_steps: 10, num_train_epochs: 1", "num_train_epochs does not"),
        ("lora_rank: 64", "--max-lora-rank"),
        ("use_dora: true", "vLLM does not load"),
        ("save_steps: 500, per_device_train_batch_size: 8, num_train_epochs: 1", "has 125 steps"),
    ],
)
def test_what_may_surprise_is_said(settings: str, told: str) -> None:
    text = f"settings: {{model_name_or_path: /m, {settings}}}"

    notes = warnings(Case(read_recipe(text, name="mine"), prepared()))

    assert any(told in note for note in notes)


def test_enough_checkpoints_surprise_nobody() -> None:
    assert not warnings(
        Case(read_recipe("settings: {save_steps: 10, template: smollm2}", name="mine"), prepared())
    )
