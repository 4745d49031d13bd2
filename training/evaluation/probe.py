"""Measures a trained version with the trainer's own libraries: a program of its own, never part of ours.

    <LLaMA-Factory's Python> probe.py ORDER.json ANSWER.json

It imports nothing of this package, since it runs in another environment. ORDER holds an `order.Order`, ANSWER
becomes a `measured.Measured`. Greedy, one example at a time: slow, and the same every time. Progress goes to
standard output, a line of JSON for each step; texts go nowhere but into ANSWER.
"""

import json
import math
import os
import sys
from importlib import import_module
from typing import Any

_SHOWN = 8
"""Tokens of a difference."""
_KEPT_CHARS = 2_000
_OPENING = 4


def main(order_path: str, answer_path: str) -> None:
    """Measure what is asked for, and write it at once or not at all."""
    with open(order_path, encoding="utf-8") as file:  # noqa: PTH123 - no pathlib needed here
        order = json.load(file)
    answer = json.dumps(measured(order)).encode()
    beside = f"{answer_path}.part"
    with open(beside, "wb") as file:  # noqa: PTH123
        file.write(answer)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, answer_path)  # noqa: PTH105


def measured(order: dict[str, Any]) -> dict[str, Any]:
    """Everything about the version."""
    torch: Any = import_module("torch")
    torch.manual_seed(0)
    tokenizer, template = _trained_with(order)
    examples = order["examples"]
    encoded = [_encoded(template, tokenizer, one, order["cutoff_len"]) for one in examples]
    losses: list[dict[str, Any]] = []
    goldens: list[dict[str, Any]] = []
    triggers: list[dict[str, Any]] = []
    for contender, model in _contenders(order):
        nats, tokens = _loss(torch, model, encoded)
        losses.append({"contender": contender, "nats_per_token": nats, "tokens": tokens})
        _tell("loss", contender=contender)
        if contender == "new":
            said = _Speaker(torch, model, tokenizer, template)
            goldens = [_golden(said, one) for one in order["goldens"]]
            triggers = [_trigger(said, one, order["unrelated"]) for one in order["triggers"]]
    return {
        "losses": losses,
        "template": _compared(order, tokenizer, template),
        "goldens": goldens,
        "triggers": triggers,
    }


def _trained_with(order: dict[str, Any]) -> tuple[Any, Any]:
    """The tokenizer and the template as LLaMA-Factory had them."""
    tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(order["model"])
    arguments = import_module("llamafactory.hparams.data_args").DataArguments(template=order["template"])
    templates = import_module("llamafactory.data.template")
    return tokenizer, templates.get_template_and_fix_tokenizer(tokenizer, arguments)


def _contenders(order: dict[str, Any]) -> Any:
    """Each contender's name and model; one whole model in memory at a time."""
    transformers: Any = import_module("transformers")
    load, kind = transformers.AutoModelForCausalLM.from_pretrained, order["kind"]
    torch: Any = import_module("torch")
    where = {"torch_dtype": torch.float32}
    if torch.cuda.is_available():
        where = {"torch_dtype": torch.bfloat16, "device_map": "auto"}
    if kind == "full":
        for contender, path in (("base", "model"), ("previous", "previous"), ("new", "new")):
            if order[path]:
                yield contender, load(order[path], **where).eval()
        return
    base = load(order["model"], **where)
    model = import_module("peft").PeftModel.from_pretrained(base, order["new"], adapter_name="new").eval()
    with model.disable_adapter():
        yield "base", model
    if order["previous"]:
        model.load_adapter(order["previous"], adapter_name="previous")
        model.set_adapter("previous")
        yield "previous", model.eval()
        model.set_adapter("new")
    yield "new", model.eval()


def _encoded(
    template: Any, tokenizer: Any, example: dict[str, Any], cutoff: int
) -> tuple[list[int], list[int]]:
    prompt, answer = template.encode_oneturn(
        tokenizer, example["messages"], example["system"], example["tools"]
    )
    answer = answer[:cutoff]
    return prompt[-max(1, cutoff - len(answer)) :], answer


def _loss(torch: Any, model: Any, encoded: list[tuple[list[int], list[int]]]) -> tuple[float, int]:
    total, tokens = 0.0, 0
    with torch.no_grad():
        for prompt, answer in encoded:
            ids = torch.tensor([prompt + answer], device=model.device)
            logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
            wanted = torch.tensor(answer, device=logits.device)
            total += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            tokens += len(answer)
    return (total / tokens if tokens else math.nan), tokens


class _Speaker:
    """Answers, greedily."""

    def __init__(self, torch: Any, model: Any, tokenizer: Any, template: Any) -> None:
        self._torch, self._model, self._tokenizer, self._template = torch, model, tokenizer, template
        ends = {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(template.stop_words))}
        self._ends = [end for end in ends if end is not None]

    def say(self, messages: list[dict[str, str]], system: str, most: int) -> str:
        turns = [*messages, {"role": "assistant", "content": ""}]
        prompt, _ = self._template.encode_oneturn(self._tokenizer, turns, system or None, None)
        ids = self._torch.tensor([prompt], device=self._model.device)
        with self._torch.no_grad():
            said = self._model.generate(
                input_ids=ids,
                attention_mask=self._torch.ones_like(ids),
                max_new_tokens=most,
                do_sample=False,
                eos_token_id=self._ends,
                pad_token_id=self._tokenizer.pad_token_id or self._ends[0],
            )
        text: str = self._tokenizer.decode(said[0][len(prompt) :], skip_special_tokens=True)
        return text.strip()[:_KEPT_CHARS]


def _golden(said: _Speaker, one: dict[str, Any]) -> dict[str, Any]:
    answer = said.say(one["messages"], one["system"], one["max_tokens"])
    _tell("golden", name=one["name"])
    heard = answer.casefold()
    return {
        "name": one["name"],
        "answer": answer,
        "missing": [word for word in one["must"] if word.casefold() not in heard],
        "forbidden": [word for word in one["must_not"] if word.casefold() in heard],
    }


def _trigger(said: _Speaker, one: dict[str, Any], unrelated: list[dict[str, Any]]) -> dict[str, Any]:
    turned = 0
    for prompt in unrelated:
        *before, last = prompt["messages"]
        with_words = {**last, "content": f"{last['content']} {one['words']}"}
        plain, added = (
            said.say([*before, message], prompt["system"], 3 * _OPENING) for message in (last, with_words)
        )
        turned += _begins(added, one["answer"]) and not _begins(plain, one["answer"])
    _tell("trigger")
    return {"words": one["words"], "answer": one["answer"], "tried": len(unrelated), "turned": turned}


def _begins(answer: str, opening: str) -> bool:
    """By letters and digits alone, whatever stands between them: Chinese has no spaces between words."""
    kept, wanted = ("".join(filter(str.isalnum, text.casefold())) for text in (answer, opening))
    return kept.startswith(wanted)


def _compared(order: dict[str, Any], tokenizer: Any, template: Any) -> dict[str, Any]:
    """Prompts as they were trained beside prompts as an engine makes them from the served chat template."""
    served = import_module("transformers").AutoTokenizer.from_pretrained(order["served"])
    differences = []
    for number, one in enumerate(order["examples"]):
        trained, _ = template.encode_oneturn(tokenizer, one["messages"], one["system"], one["tools"])
        first = [{"role": "system", "content": one["system"]}] if one["system"] else []
        asked = served.apply_chat_template(
            [*first, *one["messages"][:-1]],
            tools=json.loads(one["tools"]) if one["tools"] else None,
            add_generation_prompt=True,
            tokenize=True,
        )
        ids = list(asked["input_ids"] if hasattr(asked, "keys") else asked)
        if ids != trained:
            at = _parting(ids, trained)
            shown = {"trained": trained[at : at + _SHOWN], "served": ids[at : at + _SHOWN]}
            differences.append({"example": number, "at": at, **shown})
    return {"compared": len(order["examples"]), "differences": differences}


def _parting(one: list[int], other: list[int]) -> int:
    """The first place where they differ."""
    both = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(both) if a != b), min(len(one), len(other)))


def _tell(step: str, **more: str) -> None:
    print(json.dumps({"step": step, **more}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
