"""Write a model that is in a GGUF file into a folder in Hugging Face's format, and see that it still thinks.

    PYTHON convert_model.py FILE.gguf FOLDER

Runs in an environment that has torch, transformers, gguf and accelerate: vLLM's.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTION = "What is the capital of France?"
ANSWER = "Paris"


def main(gguf: Path, folder: Path) -> None:
    """Dequantise, store as bfloat16, load again and ask."""
    origin: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**origin)
    model = AutoModelForCausalLM.from_pretrained(**origin, dtype=torch.float32).to(torch.bfloat16)
    # What transformers remembers of the quantised file would make the engines look for quantised weights.
    model.config.dtype = torch.bfloat16
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    told = ask(folder)
    if ANSWER not in told:
        sys.exit(f"the converted model answers {QUESTION!r} with {told!r}: something of it was lost")
    print(f"{QUESTION} {told}")


def ask(folder: Path) -> str:
    """The model's likeliest answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**asked, max_new_tokens=12, do_sample=False)
    return str(tokenizer.decode(written[0][asked["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
