"""What form a client's message must have to be kept: engines refuse what is malformed, in every later prompt.

A greeting is stored without any engine having seen it, so nothing may get in that breaks the turns after it.
"""

from collections.abc import Mapping
from typing import Any

from history.errors import InvalidMessages


def check_form(fields: Mapping[str, Any], position: int) -> None:
    """Raise `InvalidMessages` naming what is malformed in a message with a known role."""
    where = f"messages[{position}]"
    _check_content(fields, where)
    _check_calls(fields.get("tool_calls"), f"{where}.tool_calls")
    if (function := fields.get("function_call")) is not None:
        _check_function(function, f"{where}.function_call")
    for name in ("name", "tool_call_id"):
        if not isinstance(fields.get(name, ""), str | None):
            raise InvalidMessages(f"{name} must be a string", param=f"{where}.{name}")


def _check_content(fields: Mapping[str, Any], where: str) -> None:
    content, param = fields.get("content"), f"{where}.content"
    if content is None:
        if fields["role"] == "assistant":
            return
        raise InvalidMessages("content is required", param=param)
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise InvalidMessages("content must be a string or an array of content parts", param=param)
    if not content and fields["role"] != "assistant":
        raise InvalidMessages("content has no parts", param=param)
    for at, part in enumerate(content):
        kind = part.get("type")
        if not isinstance(kind, str):
            raise InvalidMessages("a content part needs a type", param=f"{param}[{at}].type")
        if kind in ("text", "refusal") and not isinstance(part.get(kind), str):
            raise InvalidMessages(f"a {kind} part needs its {kind}", param=f"{param}[{at}].{kind}")


def _check_calls(calls: Any, param: str) -> None:
    if calls is None:
        return
    if not isinstance(calls, list):
        raise InvalidMessages("tool_calls must be an array", param=param)
    for at, call in enumerate(calls):
        where = f"{param}[{at}]"
        if not isinstance(call, dict) or not isinstance(call.get("id"), str):
            raise InvalidMessages("a tool call is an object with an id", param=where)
        kind = call.get("type", "function")
        if kind == "function":
            _check_function(call.get("function"), f"{where}.function")
        elif not isinstance(kind, str):
            raise InvalidMessages("a tool call's type must be a string", param=f"{where}.type")


def _check_function(function: Any, param: str) -> None:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidMessages("a function that is called is an object with a name", param=param)
    if not isinstance(function.get("arguments", ""), str):
        raise InvalidMessages("arguments must be JSON in a string", param=f"{param}.arguments")
