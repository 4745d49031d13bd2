"""The tools of a record as LLaMA-Factory reads them: a JSON text, a list, and every tool with all its
fields. Pure.

It dies of a list that is no text, of bad JSON, and of a tool without a name, a description or its parameters.
"""

from typing import Any

import msgspec

from training.datasets.chat_lines import BadRecord
from training.datasets.clean import Cleaner
from training.datasets.text import parted


def tools_text(tools: Any, cleaner: Cleaner) -> str:
    """The column's text; empty without any. Raises `BadRecord`."""
    if isinstance(tools, str) and tools.strip():
        try:
            tools = msgspec.json.decode(tools)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise BadRecord(
                "tools is no JSON: it must be a list of tools, or such a list as a text"
            ) from None
    if not tools:
        return ""
    if not isinstance(tools, list):
        raise BadRecord("tools must be a list")
    told = [_tool(tool, at, cleaner) for at, tool in enumerate(tools)]
    return parted(msgspec.json.encode(told).decode())[0]


def _tool(tool: Any, at: int, cleaner: Cleaner) -> dict[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRecord(f"tools[{at}] must be a function with a name")
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {} if isinstance(parameters, dict) else None
    if not isinstance(properties, dict) or not all(isinstance(one, dict) for one in properties.values()):
        raise BadRecord(f"tools[{at}].parameters must be a JSON schema with properties")
    required = parameters.get("required") or []
    if not isinstance(required, list):
        raise BadRecord(f"tools[{at}].parameters.required must be a list")
    return {
        "name": cleaner.text(function["name"]).text,
        "description": cleaner.text(str(function.get("description") or "")).text,
        "parameters": cleaner.deep({**parameters, "properties": properties, "required": required}),
    }
