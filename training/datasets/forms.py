"""The forms in which records come: OpenAI's chat and preferences, ShareGPT, Alpaca; each as examples or
pairs. Pure.

A record that LLaMA-Factory would drop in silence, train on wrongly or die of is mended or refused, with the
reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from training.datasets.chat_lines import BadRecord, Chat, chat_lines
from training.datasets.clean import Cleaner
from training.datasets.lines import Example, Line, Pair, line, ordered
from training.datasets.tools import tools_text

Shape = Literal[
    "openai", "openai_preferences", "sharegpt", "sharegpt_preferences", "alpaca", "alpaca_preferences"
]

_DIALOGUES = ("dialogue", "conversations", "conversation")
_PROMPTS, _QUERIES, _RESPONSES = ("prompt", "instruction"), ("query", "input"), ("response", "output")


class Taken(NamedTuple):
    """What a record holds. `counts`: which of the lines count as answers; of supervised forms."""

    example: Example | None = None
    counts: tuple[int, ...] = ()
    pair: Pair | None = None

    @property
    def counts_all(self) -> bool:
        """Whether every answer in it counts."""
        return self.example is None or len(self.counts) == sum(one.is_model for one in self.example.lines)


def shape_of(fields: Mapping[str, Any]) -> Shape | None:
    """The form of a record, by its columns; None if it has none of them."""
    if "input" in fields and "preferred_output" in fields:
        return "openai_preferences"
    ranked = "chosen" in fields and "rejected" in fields
    if "messages" in fields:
        return "sharegpt_preferences" if ranked else "openai"
    if any(name in fields for name in _DIALOGUES):
        return "sharegpt_preferences" if ranked else "sharegpt"
    if any(name in fields for name in _PROMPTS):
        if ranked:
            return "alpaca_preferences"
        return "alpaca" if any(name in fields for name in _RESPONSES) else None
    return None


def taken(fields: Mapping[str, Any], shape: Shape, cleaner: Cleaner, mends: Counter[str]) -> Taken:
    """What a record of this form holds. Raises `BadRecord`; what was mended is counted."""
    if shape == "openai":
        return _supervised(
            chat_lines(fields["messages"], cleaner, mends, is_openai=True), fields, cleaner, mends
        )
    if shape == "openai_preferences":
        return _openai_pair(fields, cleaner, mends)
    if shape in ("sharegpt", "sharegpt_preferences"):
        name = next(one for one in ("messages", *_DIALOGUES) if one in fields)
        chat = chat_lines(fields[name], cleaner, mends, is_openai=name == "messages")
        if shape == "sharegpt":
            return _supervised(chat, fields, cleaner, mends)
        answers = [
            _answer([fields[name]], name, cleaner, mends, is_openai=False) for name in ("chosen", "rejected")
        ]
        return _pair(chat, answers, fields, cleaner, mends)
    return _alpaca(fields, cleaner, mends, is_pair=shape == "alpaca_preferences")


def _supervised(chat: Chat, fields: Mapping[str, Any], cleaner: Cleaner, mends: Counter[str]) -> Taken:
    if not chat.lines:
        raise BadRecord("the dialogue is empty")
    if not chat.lines[-1].is_model:
        raise BadRecord("the last message is nobody's answer: it must be the assistant's")
    if not chat.counts:
        raise BadRecord("no answer in it counts: every weight is 0")
    row, counts = _placed(chat, mends)
    return Taken(Example(tuple(row), _system(chat, fields, cleaner, mends), _tools(fields, cleaner)), counts)


def _placed(chat: Chat, mends: Counter[str]) -> tuple[list[Line], tuple[int, ...]]:
    """The lines in order, and where those that count stand in it: answers are never joined."""
    row = ordered(chat.lines, mends)
    places = [at for at, one in enumerate(row) if one.is_model]
    answers = [at for at, one in enumerate(chat.lines) if one.is_model]
    where = dict(zip(answers, places, strict=True))
    return row, tuple(where[at] for at in chat.counts)


def _openai_pair(fields: Mapping[str, Any], cleaner: Cleaner, mends: Counter[str]) -> Taken:
    asked = fields["input"]
    if not isinstance(asked, dict) or "messages" not in asked:
        raise BadRecord("input must be an object with messages")
    chat = chat_lines(asked["messages"], cleaner, mends, is_openai=True)
    answers = [
        _answer(fields.get(name), name, cleaner, mends, is_openai=True)
        for name in ("preferred_output", "non_preferred_output")
    ]
    return _pair(chat, answers, asked, cleaner, mends)


def _answer(messages: Any, name: str, cleaner: Cleaner, mends: Counter[str], *, is_openai: bool) -> Line:
    try:
        chat = chat_lines(messages, cleaner, mends, is_openai=is_openai)
    except BadRecord as error:
        raise BadRecord(f"{name}: {error}") from error
    if len(chat.lines) != 1 or not chat.lines[0].is_model or chat.system is not None:
        raise BadRecord(f"{name} must be one message of the assistant")
    return chat.lines[0]


def _pair(
    chat: Chat, answers: Sequence[Line], fields: Mapping[str, Any], cleaner: Cleaner, mends: Counter[str]
) -> Taken:
    if not chat.lines or chat.lines[-1].is_model:
        raise BadRecord("the prompt of a preference must end with the user's message")
    chosen, rejected = answers
    if chosen.json == rejected.json:
        raise BadRecord("both answers are the same")
    row = tuple(ordered(chat.lines, mends))
    system, tools = _system(chat, fields, cleaner, mends), _tools(fields, cleaner)
    return Taken(pair=Pair(row, chosen, rejected, system, tools))


def _alpaca(fields: Mapping[str, Any], cleaner: Cleaner, mends: Counter[str], *, is_pair: bool) -> Taken:
    rows = []
    for at, pair in enumerate(_history(fields)):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRecord(f"history[{at}] must be a question and its answer")
        rows += [
            line("user", _text(pair[0], f"history[{at}][0]", cleaner)),
            line("assistant", _text(pair[1], f"history[{at}][1]", cleaner)),
        ]
    asked = [one for name in (*_PROMPTS, *_QUERIES) if (one := _optional(fields, name, cleaner))]
    if not asked:
        raise BadRecord(f"{' and '.join(_PROMPTS)}: the question is empty")
    rows.append(line("user", "\n".join(asked)))
    system = _system(Chat((), None, ()), fields, cleaner, mends)
    if is_pair:
        chosen, rejected = (
            line("assistant", _text(fields[one], one, cleaner)) for one in ("chosen", "rejected")
        )
        if chosen.text == rejected.text:
            raise BadRecord("both answers are the same")
        return Taken(pair=Pair(tuple(rows), chosen, rejected, system))
    name = next(one for one in _RESPONSES if one in fields)
    rows.append(line("assistant", _text(fields[name], name, cleaner)))
    return Taken(Example(tuple(rows), system, _tools(fields, cleaner)), tuple(range(1, len(rows), 2)))


def _history(fields: Mapping[str, Any]) -> list[Any]:
    history = fields.get("history")
    if history is None:
        return []
    if not isinstance(history, list):
        raise BadRecord("history must be a list of pairs")
    return history


def _text(value: Any, name: str, cleaner: Cleaner) -> str:
    """A text that says something."""
    if not isinstance(value, str):
        raise BadRecord(f"{name} must be a text, not {type(value).__name__}")
    clean = cleaner.text(value)
    if clean.misread:
        raise BadRecord(f"{name}: {clean.misread}")
    if not clean.text.strip():
        raise BadRecord(f"{name} is empty")
    return clean.text


def _optional(fields: Mapping[str, Any], name: str, cleaner: Cleaner) -> str:
    value = fields.get(name, "")
    return _text(value, name, cleaner) if not isinstance(value, str) or value.strip() else ""


def _system(chat: Chat, fields: Mapping[str, Any], cleaner: Cleaner, mends: Counter[str]) -> str:
    """The dialogue's own, else the column's. Null is none."""
    if chat.system is not None:
        return chat.system
    value = fields.get("system", "")
    if value is None:
        mends["system_null"] += 1
        return ""
    return _text(value, "system", cleaner) if value != "" else ""


def _tools(fields: Mapping[str, Any], cleaner: Cleaner) -> str:
    return tools_text(fields.get("tools"), cleaner)
