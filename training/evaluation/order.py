"""What the probe is asked to measure: held-out examples, golden prompts, suspicious words. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from training.errors import BadDataset
from training.evaluation.triggers import Suspicion, suspicions

MAX_EXAMPLES = 200
"""Held-out answers that are measured: a loss over some ten thousand tokens is exact to a percent."""
MAX_UNRELATED = 5
"""Prompts to which each suspicious phrase is added; each costs two answers."""
MAX_GOLDENS = 200
_MAX_TOKENS = 512


class Example(msgspec.Struct, frozen=True):
    """A prompt with its answer last, in the roles that LLaMA-Factory reads."""

    messages: tuple[Mapping[str, str], ...]
    system: str | None = None
    tools: str | None = None


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt and what its answer has to say. A line of a file of golden prompts."""

    name: str
    messages: tuple[Mapping[str, str], ...]
    system: str = ""
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()
    max_tokens: int = 64


class Spoken(msgspec.Struct, frozen=True):
    """A prompt without an answer."""

    messages: tuple[Mapping[str, str], ...]
    system: str = ""


class Order(msgspec.Struct, frozen=True):
    """Everything that a probe needs to know."""

    model: str
    """The folder of the base."""
    new: str
    previous: str | None
    served: str
    """The folder whose tokenizer and chat template the engine uses: the base's for an adapter."""
    kind: Literal["lora", "full"]
    template: str
    cutoff_len: int
    examples: tuple[Example, ...]
    goldens: tuple[Golden, ...] = ()
    triggers: tuple[Suspicion, ...] = ()
    unrelated: tuple[Spoken, ...] = ()


class _Row(msgspec.Struct):
    """A row of either form that `training.datasets` writes."""

    dialogue: tuple[dict[str, str], ...] = ()
    system: str = ""
    tools: str = ""
    chosen: dict[str, str] | str | None = None
    """Of a preference pair, the better answer, which stands apart."""
    prompt: str = ""
    history: tuple[tuple[str, str], ...] = ()
    response: str = ""

    def messages(self) -> tuple[dict[str, str], ...]:
        """All of them, the answer last."""
        answer = self.chosen if isinstance(self.chosen, str) else self.response
        if self.dialogue:
            return (*self.dialogue, self.chosen) if isinstance(self.chosen, dict) else self.dialogue
        said = [text for pair in self.history for text in pair]
        roles = ("user", "assistant")
        texts = (*said, self.prompt, answer)
        return tuple({"role": roles[at % 2], "content": text} for at, text in enumerate(texts))


def examples_of(lines: Iterable[bytes], *, most: int = MAX_EXAMPLES) -> tuple[Example, ...]:
    """The examples of a dataset's file (`training.datasets`); of more than `most`, some from all over it."""
    rows = [msgspec.json.decode(line, type=_Row) for line in lines if line.strip()]
    step = max(1.0, len(rows) / most)
    chosen = [rows[int(step * number)] for number in range(min(most, len(rows)))]
    return tuple(Example(row.messages(), row.system or None, row.tools or None) for row in chosen)


def pairs_of(lines: Iterable[bytes]) -> Iterable[tuple[str, str]]:
    """The newest message and its answer of each example in a dataset's file."""
    for line in lines:
        if line.strip():
            *_, asked, answer = msgspec.json.decode(line, type=_Row).messages()
            yield asked["content"], answer["content"]


def goldens_of(lines: Iterable[bytes]) -> tuple[Golden, ...]:
    """Golden prompts, one a line. Raises BadDataset, naming every line that cannot be one."""
    found, problems = list[Golden](), list[str]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            golden = msgspec.json.decode(line, type=Golden)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"golden prompt in line {number}: {error}")
            continue
        if wrong := _wrong(golden):
            problems.append(f"golden prompt in line {number}: {wrong}")
        found.append(golden)
    if len(found) > MAX_GOLDENS:
        problems.append(f"{len(found)} golden prompts; {MAX_GOLDENS} are the most")
    if problems:
        raise BadDataset(tuple(problems[:20]))
    return tuple(found)


def suspected(
    train: Iterable[bytes], examples: Sequence[Example]
) -> tuple[tuple[Suspicion, ...], tuple[Spoken, ...]]:
    """What to look for in a dataset's file, and held-out prompts to look with, which lack those words."""
    found = suspicions(pairs_of(train))
    words = [one.words for one in found]
    prompts = [
        Spoken(one.messages[:-1], one.system or "")
        for one in examples
        if one.tools is None and not _has_any(one.messages[-2]["content"], words)
    ]
    return (found, tuple(prompts[:MAX_UNRELATED])) if prompts else ((), ())


def _has_any(text: str, phrases: Sequence[str]) -> bool:
    folded = text.casefold()
    return any(phrase in folded for phrase in phrases)


def _wrong(golden: Golden) -> str:
    if not golden.messages or golden.messages[-1].get("role") != "user":
        return "messages: the last one has to be a user's"
    if not golden.must and not golden.must_not:
        return "give must or must_not: what the answer has to say, or must not"
    if not 1 <= golden.max_tokens <= _MAX_TOKENS:
        return f"max_tokens: from 1 to {_MAX_TOKENS}"
    roles = [message.get("role") for message in golden.messages]
    expected = ["user", "assistant"] * (len(roles) // 2) + ["user"]
    return (
        ""
        if roles == expected
        else "messages: user and assistant take turns; a system text stands in `system`"
    )
