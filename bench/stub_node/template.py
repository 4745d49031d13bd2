"""Chat templates that are not as a gateway would like them: what they do to messages before rendering."""

import re
from collections.abc import Callable, Sequence

import msgspec

from bench.stub_node.node import Node
from bench.stub_node.refusal import Refusal, Refused
from bench.stub_node.wire import Message

_THOUGHTS = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def templated(node: Node, messages: Sequence[Message]) -> Sequence[Message]:
    """The messages as the template takes them. Raises Refused (400) for roles that it does not."""
    if not node.spec.has("roles"):
        for message, role in zip(messages, ("user", "assistant") * len(messages), strict=False):
            if message.role == "system":
                raise Refused(Refusal(400, "bad_request", "System role not supported"))
            if message.role != role:
                rule = "Conversation roles must alternate user/assistant/user/assistant/..."
                raise Refused(Refusal(400, "bad_request", rule))
    if not node.spec.has("thoughts"):
        messages = [_answers(message, lambda text: _THOUGHTS.sub("", text)) for message in messages]
    if not node.spec.has("turns"):
        *earlier, last = messages
        messages = [*(_answers(message, str.upper) for message in earlier[:-1]), *earlier[-1:], last]
    return messages


def _answers(message: Message, change: Callable[[str], str]) -> Message:
    """The message with its text changed, if it is an answer."""
    if message.role != "assistant" or not isinstance(message.content, str):
        return message
    return msgspec.structs.replace(message, content=change(message.content))
