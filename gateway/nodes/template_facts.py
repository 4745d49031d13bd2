"""What a node's chat template does to a dialogue, found out by rendering a few: no token is generated.

vLLM renders at /tokenize, llama.cpp at /apply-template; of other engines nothing is known. A template may
refuse what the gateway sends (Gemma's takes no system message), render earlier turns anew as a dialogue
grows, or drop the thoughts of earlier answers (reasoning models): then the cache is lost from there on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.errors import NodeFault
from gateway.nodes.asking import Answered, Asker
from gateway.routing.node import EngineFacts, TemplateFacts

Message = dict[str, str]

_SYSTEM: Message = {"role": "system", "content": "You are Ada."}
_USER: Message = {"role": "user", "content": "Hello."}
_ANSWER: Message = {"role": "assistant", "content": "Good evening."}
_THOUGHTS: Message = {"role": "assistant", "content": "<think>\nA guest.\n</think>\n\nGood evening."}


_AT_LEAST = 4
"""Tokens of the thoughts; a template may leave a blank of what it drops."""


_PATHS = {"vLLM": "/tokenize", "llama.cpp": "/apply-template"}
_REFUSALS = (400, 500)
"""llama.cpp answers 500 where a template raises."""


class _Rendered(msgspec.Struct, frozen=True):
    tokens: list[int] | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class _Template:
    """A node's template, asked."""

    asker: Asker
    path: str
    model: str

    async def rendered(self, *messages: Message) -> Sequence[Any]:
        """The prompt as text or tokens. Raises a `NodeFault`, or ValueError for what is neither."""
        body = {"model": self.model, "messages": messages, "add_generation_prompt": True}
        told = await self.asker.post(self.path, msgspec.json.encode(body))
        read = msgspec.json.decode(told, type=_Rendered)
        found = read.tokens if read.prompt is None else read.prompt
        if not found:
            raise ValueError("it renders nothing")
        return found

    async def takes(self, *messages: Message) -> bool:
        """Whether it renders this dialogue at all."""
        try:
            await self.rendered(*messages)
        except Answered as refused:
            if refused.status not in _REFUSALS:
                raise
            return False
        return True


async def render_some(asker: Asker, facts: EngineFacts, model: str) -> TemplateFacts:
    """What became of the dialogues. Never raises a `NodeFault`: what is not answered is unknown."""
    path = _PATHS.get(facts.product)
    if path is None:
        return TemplateFacts()
    template = _Template(asker, path, model)
    try:
        if not await template.takes(_USER):
            return TemplateFacts()
        one = await template.rendered(_USER, _ANSWER, _USER)
        two = await template.rendered(_USER, _ANSWER, _USER, _ANSWER, _USER)
        thoughts = await template.rendered(_USER, _THOUGHTS, _USER)
        return TemplateFacts(
            takes_system=await template.takes(_SYSTEM, _USER),
            takes_greeting=await template.takes(_ANSWER, _USER),
            keeps_turns=two[: len(one)] == one,
            keeps_thoughts=len(thoughts) > len(one) + _AT_LEAST,
        )
    except (NodeFault, ValueError):
        return TemplateFacts()


def template_notes(facts: TemplateFacts) -> tuple[str, ...]:
    """What the template does not do as the gateway needs it, each with what mends it."""
    notes = []
    if facts.takes_system is False:
        notes.append(
            "its chat template takes no system message, so personas and memories cannot be sent to it: start "
            "it with a --chat-template that takes one"
        )
    if facts.takes_greeting is False:
        notes.append(
            "its chat template wants the user first, so a dialogue that begins with a greeting cannot be "
            "sent to it: start it with a --chat-template that takes one"
        )
    if facts.keeps_turns is False:
        notes.append(
            "its chat template renders earlier turns anew as a dialogue grows, so its cache serves little of "
            "them: start it with a --chat-template that leaves them as they were"
        )
    elif facts.keeps_thoughts is False:
        notes.append(
            "its chat template drops the thoughts of earlier answers: after an answer with thoughts in its "
            "text, the next prompt is computed from there on; a --reasoning-parser keeps them out of the text"
        )
    return tuple(notes)
