"""What a recipe takes of each GPU: counted parameters, and divided states."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.recipes.faults import ShapeUnknown
from training.recipes.memory import GIB, memory
from training.recipes.recipe import Recipe, read_recipe
from training.recipes.shape import Shape, shape_of

SMOLLM2_135M = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "model_type": "llama",
}
QWEN2_5_0_5B = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "model_type": "qwen2",
}
QWEN2_5_7B = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "model_type": "qwen2",
}
QWEN3_0_6B = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "model_type": "qwen3",
}


def shape(config: dict[str, object]) -> Shape:
    return shape_of(json.dumps(config).encode())


SEVEN = shape(QWEN2_5_7B)


def recipe(settings: str, launch: str = "") -> Recipe:
    return read_recipe(f"settings: {{{settings}}}\nlaunch: {{{launch}}}", name="mine")


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (SMOLLM2_135M, 134_515_008),
        (QWEN2_5_0_5B, 494_032_768),
        (QWEN2_5_7B, 7_615_616_512),
        (QWEN3_0_6B, 596_049_920),
    ],
)
def test_parameters_are_those_of_the_published_models(config: dict[str, object], parameters: int) -> None:
    assert shape(config).parameters == parameters


def test_an_adapter_has_what_peft_saves() -> None:
    """SmolLM2 135M at rank 8: 9.8 MB of 32-bit numbers in a real run."""
    assert shape(SMOLLM2_135M).adapter(8, "all") * 4 / 1e6 == pytest.approx(9.8, abs=0.05)
    assert SEVEN.adapter(8, "q_proj,v_proj") == 28 * 8 * (3584 * 2 + 3584 + 512)


@pytest.mark.parametrize(
    ("launch", "weights", "gradients", "optimizer"),
    [
        ("", 4, 4, 8),
        ("by: torchrun, processes: 8, deepspeed: {stage: 0}", 2, 2, 12),
        ("by: torchrun, processes: 8, deepspeed: {stage: 1}", 2, 2, 12 / 8),
        ("by: torchrun, processes: 8, deepspeed: {stage: 2}", 2, 2 / 8, 12 / 8),
        ("by: torchrun, processes: 8, deepspeed: {stage: 3}", 2 / 8, 2 / 8, 12 / 8),
        ("by: torchrun, processes: 8, nodes: 2, deepspeed: {stage: 3}", 2 / 16, 2 / 16, 12 / 16),
        ("by: torchrun, processes: 8, deepspeed: {stage: 3, offload: optimizer}", 2 / 8, 2 / 8, 0),
        ("by: torchrun, processes: 8, deepspeed: {stage: 3, offload: all}", 0, 2 / 8, 0),
    ],
)
def test_states_are_divided_as_zero_divides_them(
    launch: str, weights: float, gradients: float, optimizer: float
) -> None:
    """Bytes for each parameter, of table 1 of the paper."""
    found = memory(recipe("finetuning_type: full, bf16: true", launch), SEVEN)

    assert found.weights == pytest.approx(weights * SEVEN.parameters)
    assert found.gradients == pytest.approx(gradients * SEVEN.parameters)
    assert found.optimizer == pytest.approx(optimizer * SEVEN.parameters)


def test_few_bits_take_less_than_an_adapter_over_sixteen() -> None:
    plain = memory(recipe("finetuning_type: lora"), SEVEN)
    few = memory(recipe("finetuning_type: lora, quantization_bit: 4"), SEVEN)

    assert plain.weights / GIB == pytest.approx(14.3, abs=0.2)
    assert few.weights / GIB == pytest.approx(5.2, abs=0.3)
    assert few.gradients == plain.gradients


def test_preferences_run_two_answers_and_a_full_model_beside_its_reference() -> None:
    for method in ("lora", "full"):
        one = memory(recipe(f"finetuning_type: {method}, stage: sft"), SEVEN)
        two = memory(recipe(f"finetuning_type: {method}, stage: dpo"), SEVEN)
        assert two.activations == 2 * one.activations
        assert two.weights - one.weights == (2 * SEVEN.parameters if method == "full" else 0)


def test_checkpointing_and_flash_attention_save_memory() -> None:
    least, without, neither = (
        memory(recipe(f"cutoff_len: 4096{more}"), SEVEN).activations
        for more in (
            "",
            ", disable_gradient_checkpointing: true",
            ", disable_gradient_checkpointing: true, flash_attn: disabled",
        )
    )

    assert least < without / 5
    assert without < neither


@given(st.integers(1, 16), st.integers(128, 32768))
def test_more_tokens_at_once_never_take_less(batch: int, cutoff: int) -> None:
    def total(size: int, length: int) -> float:
        text = f"per_device_train_batch_size: {size}, cutoff_len: {length}"
        return memory(recipe(text), SEVEN).total

    assert total(batch, cutoff) < total(batch + 1, cutoff)
    assert total(batch, cutoff) < total(batch, cutoff + 1)


def test_what_does_not_fit_is_said() -> None:
    found = memory(recipe("finetuning_type: full, per_device_train_batch_size: 1"), SEVEN)

    assert "does not fit into 80 GiB" in found.verdict(80)
    assert "hardly fits" in found.verdict(found.total / GIB + 1)
    assert found.verdict(200) == ""


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (b"{", "not readable"),
        (b"[]", "not readable"),
        (b'{"hidden_size": 8}', "not that of a decoder"),
        (json.dumps({**QWEN2_5_7B, "num_experts": 8}).encode(), "mixture of experts"),
        (json.dumps({**QWEN2_5_7B, "hidden_size": 0}).encode(), "below 1"),
    ],
)
def test_unknown_shapes_are_refused(config: bytes, told: str) -> None:
    with pytest.raises(ShapeUnknown, match=told):
        shape_of(config)


def test_the_language_part_of_a_larger_model_counts() -> None:
    assert shape({"model_type": "both", "text_config": QWEN2_5_7B}) == SEVEN


@pytest.mark.parametrize(
    "settings", ["finetuning_type: freeze", "finetuning_type: full, use_galore: true", "lora_target: lm_head"]
)
def test_methods_without_a_formula_get_no_number(settings: str) -> None:
    with pytest.raises(ShapeUnknown, match="no estimate"):
        memory(recipe(settings), SEVEN)
