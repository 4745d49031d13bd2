"""A LoRA adapter without training: PEFT's two files, from a seed, large enough to be heard in every answer.

Written byte by byte, since the project's environment has neither numpy nor safetensors: a safetensors file is
the length of a JSON header, the header, and the numbers; bfloat16 is the upper half of a float32.
"""

import json
import random
import struct
from pathlib import Path

RANK = 8
ALPHA = 16
SPREAD = 0.06
"""Of the numbers drawn: what is said changes, and stays language."""
BYTES_A_NUMBER = 2


def write_adapter(folder: Path, model: Path, *, seed: int) -> Path:
    """Write an adapter of `model` on its query and value projections; gives the folder, which it makes."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = json.loads((model / "config.json").read_text())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(weights(shape, random.Random(seed)))
    return folder


def weights(shape: dict[str, int], drawn: random.Random) -> bytes:
    """The file's bytes, for a model of this shape (its `config.json`)."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    wide, head = shape["hidden_size"], shape["head_dim"]
    outputs = {"q_proj": shape["num_attention_heads"] * head, "v_proj": shape["num_key_value_heads"] * head}
    for layer in range(shape["num_hidden_layers"]):
        for module, output in outputs.items():
            for name, rows, columns in (("lora_A", RANK, wide), ("lora_B", output, RANK)):
                begin = len(body)
                body += _numbers(rows * columns, drawn)
                header[f"base_model.model.model.layers.{layer}.self_attn.{module}.{name}.weight"] = {
                    "dtype": "BF16",
                    "shape": [rows, columns],
                    "data_offsets": [begin, begin + rows * columns * BYTES_A_NUMBER],
                }
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)  # the numbers begin at a multiple of eight
    return struct.pack("<Q", len(told)) + told + bytes(body)


def _numbers(count: int, drawn: random.Random) -> bytes:
    """So many of them as bfloat16, cut rather than rounded."""
    whole = struct.pack(f"<{count}f", *(drawn.gauss(0.0, SPREAD) for _ in range(count)))
    cut = bytearray(count * BYTES_A_NUMBER)
    cut[0::2], cut[1::2] = whole[2::4], whole[3::4]
    return bytes(cut)
