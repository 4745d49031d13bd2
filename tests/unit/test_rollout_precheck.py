"""Adapters that engines would refuse, or answer wrongly, are told apart before anything is loaded."""

import json
from typing import Any

import pytest

from gateway.rollout.precheck import Host, problems

GOOD = {
    "peft_type": "LORA",
    "r": 16,
    "bias": "none",
    "target_modules": ["q_proj", "model.layers.0.v_proj"],
    "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "modules_to_save": None,
    "use_dora": False,
}
SGLANG = Host(
    "b",
    max_rank=16,
    modules=frozenset({"q_proj", "v_proj"}),
    roots={"small": "/models/smollm2-135m-instruct/"},
)


def found(other: dict[str, Any], *hosts: Host, base: str = "") -> list[str]:
    return problems(json.dumps(GOOD | other).encode(), hosts, model="small", base=base)


def test_a_sound_adapter_has_no_problem() -> None:
    """On nodes of which much is known, and on those of which nothing is."""
    assert [] == found({}, SGLANG, Host("a"))
    assert [] == found({"target_modules": "all-linear"}, SGLANG)
    assert [] == found({"target_modules": ["o_proj"]}, Host("c", modules=frozenset({"all"})))
    assert [] == found({"modules_to_save": ["score"]}, SGLANG)
    assert [] == found({"base_model_name_or_path": "/train/here"}, SGLANG, base="here")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"modules_to_save": "lm_head"}, "modules_to_save"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "biases"),
        ({"r": None}, "no rank"),
        ({"r": "16"}, "no rank"),
        ({"target_modules": []}, "target_modules"),
        ({"r": 32}, "node b: rank 32 is above its 16"),
        ({"rank_pattern": {"q_proj": 64}}, "rank 64"),
        ({"target_modules": ["o_proj"]}, "node b: it takes no adapters of o_proj"),
        ({"base_model_name_or_path": "other/model-7b"}, "the adapter is of other/model-7b"),
    ],
)
def test_each_problem_has_its_reason(other: dict[str, Any], words: str) -> None:
    """And nothing else is complained about."""
    told = found(other, SGLANG)
    assert 1 == len(told)
    assert words in told[0]


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b"\xff", b"[" * 5000])
def test_what_is_no_config_is_said_to_be_none(config: bytes) -> None:
    """A file may hold anything."""
    assert ["adapter_config.json cannot be read"] == [
        one.partition(":")[0] for one in problems(config, (), model="small")
    ]
