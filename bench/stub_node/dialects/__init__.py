"""How each engine says the same facts: one module per engine, all of the shape `Dialect`."""

from bench.stub_node.dialects import llamacpp, sglang, vllm
from bench.stub_node.dialects.shapes import Dialect
from bench.stub_node.spec import EngineName

DIALECTS: dict[EngineName, Dialect] = {"vllm": vllm, "sglang": sglang, "openai": llamacpp}
