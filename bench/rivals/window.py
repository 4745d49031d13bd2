"""What a client that keeps its own history sends, and what one sends that leaves it to the gateway. Pure."""

from collections.abc import Sequence
from typing import Literal

from bench.rivals.script import Script
from history.window import WindowRule, stateless_cut

Keeping = Literal["sliding", "stepped", "gateway"]
"""`sliding`: the last `min_turns` turns. `stepped`: cut as this product cuts. `gateway`: only what is new."""

Message = dict[str, str]


def messages(script: Script, answers: Sequence[str], keeping: Keeping, rule: WindowRule) -> list[Message]:
    """What is sent after so many answers."""
    count = len(answers)
    new = {"role": "user", "content": script.said[count]}
    persona = {"role": "system", "content": script.persona}
    if keeping == "gateway":
        return [new] if count else [persona, new]
    cut = stateless_cut(count, rule) if keeping == "stepped" else max(0, count - rule.min_turns)
    shown: list[Message] = []
    for said, answer in zip(script.said[cut:count], answers[cut:], strict=True):
        shown += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
    return [persona, *shown, new]
