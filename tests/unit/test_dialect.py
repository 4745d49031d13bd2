"""What engines say of their load and of their errors, in every envelope that they use."""

import msgspec
import pytest

from gateway.nodes.dialect import DIALECTS, read_error
from gateway.nodes.engine_metrics import Load, read_load

VLLM = b"""# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:cache_config_info{block_size="16",cache_dtype="auto"} 1.0
"""
SGLANG = b"""sglang:num_queue_reqs{tp_rank="0"} 2.0
sglang:token_usage{tp_rank="0"} 0.5
sglang:page_size{tp_rank="0"} 64
"""


def test_load_of_vllm() -> None:
    """Queues of its ranks add up, the fullest cache counts, the block size stands in a label."""
    assert Load(waiting=7, kv_usage=0.75, block_size=16) == read_load(VLLM, DIALECTS["vllm"])


def test_load_of_sglang() -> None:
    """The page size is a gauge of its own."""
    assert Load(waiting=2, kv_usage=0.5, block_size=64) == read_load(SGLANG, DIALECTS["sglang"])


def test_older_names_are_known() -> None:
    """The cache gauge of vLLM was renamed."""
    assert read_load(b"vllm:gpu_cache_usage_perc 0.5\n", DIALECTS["vllm"]).kv_usage == 0.5


@pytest.mark.parametrize("engine", DIALECTS)
def test_absent_gauges_are_unknown(engine: str) -> None:
    """Not zero: an engine without metrics is not an idle one."""
    unknown = Load(waiting=None, kv_usage=None, block_size=None)
    assert unknown == read_load(b"", DIALECTS[engine])  # type: ignore[index] # the keys are engines
    assert unknown == read_load(b"\xff\x00 no metrics", DIALECTS[engine])  # type: ignore[index] # as above


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-Inf", b"many"])
def test_what_is_no_number_is_unknown(value: bytes) -> None:
    """A gauge may be NaN, and must not end the gateway."""
    text = b"vllm:num_requests_waiting %b\nsglang:page_size %b\n" % (value, value)
    assert read_load(text, DIALECTS["vllm"]).waiting is None
    assert read_load(text, DIALECTS["sglang"]).block_size is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"boom","type":"BadRequestError","param":"model","code":400}}',
        b'{"object":"error","message":"boom","type":"BadRequestError","param":"model","code":400}',
        b'{"error":{"object":"error","message":"boom","param":"model","code":400}}',
    ],
)
def test_error_is_read_from_any_envelope(body: bytes) -> None:
    """OpenAI's, which vLLM has too, SGLang's flat one, and SGLang's inside a stream."""
    error = read_error(body)
    assert ("boom", "model", 400, None) == (error.message, error.param, error.status, error.code)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>"),
        (b"", "the node gave no reason"),
        (b"null", "None"),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"{" * 100_000, "{" * 500),
        (
            msgspec.json.encode({"error": {"message": None, "code": "x", "param": 5}}),
            "the node gave no reason",
        ),
    ],
)
def test_any_body_gives_a_message(body: bytes, message: str) -> None:
    """Whatever stands between the gateway and the engine may answer."""
    error = read_error(body)
    assert (message, None, None) == (error.message, error.param, error.status)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, your prompt contains 9000 input tokens",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "Requested token count exceeds the model's maximum context length of 8192 tokens.",
        "max_tokens=9000 cannot be greater than max_model_len=8192. Please request fewer output tokens.",
        "the request exceeds the available context size. try increasing the context size",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ],
)
def test_prompt_that_is_too_long_is_told_by_its_code(message: str) -> None:
    """Clients cut their prompt on `context_length_exceeded`, whichever engine it was."""
    assert read_error(msgspec.json.encode({"error": {"message": message}})).code == "context_length_exceeded"


def test_other_refusals_have_no_code() -> None:
    """The engines' codes are only their statuses."""
    assert read_error(b'{"error":{"message":"temperature must be positive","code":400}}').code is None
