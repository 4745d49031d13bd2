"""Loading and unloading adapters at run time, as vLLM (text answers) and SGLang (JSON answers) offer it."""

from bench.stub_node import wire
from bench.stub_node.adapters import holds_adapter
from bench.stub_node.http1 import Connection, Request
from bench.stub_node.node import Node
from bench.stub_node.refusal import Refusal, Refused


async def vllm_load(node: Node, request: Request, connection: Connection) -> None:
    """POST /v1/load_lora_adapter."""
    body = wire.decode(request.body, wire.AdapterRequest)
    if not body.lora_name or not body.lora_path:
        raise Refused(_user_error("Both 'lora_name' and 'lora_path' must be provided."))
    if body.lora_name == node.spec.model:
        raise Refused(_user_error(f"The lora adapter '{body.lora_name}' conflicts with a served base model."))
    if node.adapters.get(body.lora_name) and not body.load_inplace:
        raise Refused(
            _user_error(
                f"The lora adapter '{body.lora_name}' has already been loaded. If you want to load the "
                "adapter in place, set 'load_inplace' to True."
            )
        )
    if not holds_adapter(body.lora_path):
        message = f"Loading lora {body.lora_name} failed: No adapter found for <path>"
        raise Refused(Refusal(404, "fault", message))
    node.adapters.load(body.lora_name, body.lora_path)
    _say(connection, f"Success: LoRA adapter '{body.lora_name}' added successfully.")


async def vllm_unload(node: Node, request: Request, connection: Connection) -> None:
    """POST /v1/unload_lora_adapter."""
    body = wire.decode(request.body, wire.AdapterRequest)
    if not node.adapters.unload(body.lora_name):
        raise Refused(Refusal(404, "unknown_model", f"The lora adapter '{body.lora_name}' cannot be found."))
    _say(connection, f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


async def sglang_load(node: Node, request: Request, connection: Connection) -> None:
    """POST /load_lora_adapter."""
    body = wire.decode(request.body, wire.AdapterRequest)
    problem = ""
    if node.adapters.get(body.lora_name):
        problem = f"Failed to load LoRA adapter {body.lora_name} because it is already loaded"
    elif not body.lora_path or not holds_adapter(body.lora_path):
        problem = f"Failed to load LoRA adapter {body.lora_name}: no adapter at {body.lora_path}"
    else:
        node.adapters.load(body.lora_name, body.lora_path)
    _report(node, connection, problem)


async def sglang_unload(node: Node, request: Request, connection: Connection) -> None:
    """POST /unload_lora_adapter."""
    body = wire.decode(request.body, wire.AdapterRequest)
    known = node.adapters.unload(body.lora_name)
    _report(node, connection, "" if known else f"LoRA with name {body.lora_name} does not exist.")


def _user_error(message: str) -> Refusal:
    return Refusal(400, "user_input", message)


def _say(connection: Connection, text: str) -> None:
    connection.send(200, text.encode(), content_type="text/plain; charset=utf-8")


def _report(node: Node, connection: Connection, problem: str) -> None:
    body = {
        "rid": None,
        "http_worker_ipc": None,
        "success": not problem,
        "error_message": problem,
        "loaded_adapters": {adapter.name: adapter.path for adapter in node.adapters},
    }
    connection.send(400 if problem else 200, wire.encode(body))
