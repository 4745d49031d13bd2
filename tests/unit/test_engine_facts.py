"""What engines tell of themselves, in every form that versions of them have, and what is made of it."""

from typing import Any

import msgspec
import pytest

from gateway.nodes.dialect import DIALECTS
from gateway.nodes.engine_facts import (
    lacking,
    read_kv_sources,
    read_props,
    read_running_models,
    read_server_info,
    read_version,
)
from gateway.nodes.engine_metrics import Load, read_cache, read_load, read_loads
from gateway.routing.kv_source import KvSource
from gateway.routing.node import EngineFacts, NodeSpec

VLLM = NodeSpec(engine="vllm", url="http://10.0.0.7:8000")
SGLANG = NodeSpec(engine="sglang", url="http://10.0.0.8:30000")
OTHER = NodeSpec(engine="openai", url="http://10.0.0.9:11434")

VLLM_0_7_3 = b"""vllm:cache_config_info{block_size="16",cache_dtype="auto",calculate_kv_scales="False",\
cpu_offload_gb="0",enable_prefix_caching="False",gpu_memory_utilization="0.9",is_attention_free="False",\
num_cpu_blocks="2048",num_gpu_blocks="1800",sliding_window="None",swap_space_bytes="4294967296"} 1.0
vllm:num_requests_running{model_name="m"} 1.0
vllm:num_requests_waiting{model_name="m"} 2.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:prompt_tokens_total{model_name="m"} 1234.0
"""
VLLM_RANKS = b"""vllm:cache_config_info{block_size="32",enable_prefix_caching="True",engine="0",\
kv_cache_size_tokens="64000",num_gpu_blocks="2000"} 1.0
vllm:cache_config_info{block_size="32",enable_prefix_caching="True",engine="1",\
kv_cache_size_tokens="32000",num_gpu_blocks="1000"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 4.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:prompt_tokens_total{engine="0",model_name="m"} 10.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 20.0
"""
SGLANG_INFO = {
    "version": "0.5.23",
    "status": "ready",
    "max_total_num_tokens": 16384,
    "page_size": 16,
    "dp_size": 1,
    "enable_cache_report": False,
    "disable_radix_cache": False,
    "enable_priority_scheduling": False,
    "model_path": "/models/x",
    "internal_states": [{}],
    "kv_events": {
        "publisher": "zmq",
        "endpoint_host": "*",
        "endpoint_port_base": 5567,
        "topic": "kv-events",
        "block_size": 16,
        "dp_size": 1,
        "replay_endpoint_port_base": 5568,
    },
}


def of_rank(spec: NodeSpec, rank: int) -> NodeSpec:
    return msgspec.structs.replace(spec, rank=rank)


def sglang(**changes: Any) -> EngineFacts:
    """The facts of a server that tells this."""
    told = read_server_info(msgspec.json.encode({**SGLANG_INFO, **changes}), SGLANG)
    assert told is not None
    return told


def test_the_cache_of_an_old_vllm() -> None:
    """0.7.3 keeps no prefixes unless told to, and says how many blocks of which size it has."""
    facts = read_cache(VLLM_0_7_3, DIALECTS["vllm"])

    assert (False, 1800 * 16, None) == (facts.caches, facts.kv_tokens, facts.ranks)
    assert Load(2, 1, 0.5, 16, 1234) == read_load(VLLM_0_7_3, DIALECTS["vllm"])
    (note,) = lacking(facts, VLLM)
    assert "--enable-prefix-caching" in note


def test_progress_is_known_where_prompts_and_answers_are_counted() -> None:
    """One without the other would stand still while the other goes on."""
    assert read_load(VLLM_0_7_3, DIALECTS["vllm"]).progress is None
    counted = VLLM_0_7_3 + b'vllm:generation_tokens_total{model_name="m"} 66.0\n'
    assert read_load(counted, DIALECTS["vllm"]).progress == 1300
    assert read_load(counted, DIALECTS["openai"]).progress is None


def test_the_ranks_of_a_vllm_are_told_apart() -> None:
    """In all they are one node with two caches; each by itself has its own numbers."""
    dialect = DIALECTS["vllm"]

    assert Load(7, 5, 0.75, 32, 30) == read_load(VLLM_RANKS, dialect)
    assert Load(4, 5, 0.75, 32, 20) == read_load(VLLM_RANKS, dialect, 1)
    assert Load() == read_load(VLLM_RANKS, dialect, 2)
    whole, second = read_cache(VLLM_RANKS, dialect), read_cache(VLLM_RANKS, dialect, 1)
    assert (True, 96_000, 2) == (whole.caches, whole.kv_tokens, whole.ranks)
    assert (True, 32_000) == (second.caches, second.kv_tokens)
    assert "2 data-parallel ranks share its address" in lacking(whole, VLLM)[0]
    assert () == lacking(second, of_rank(VLLM, 1))


@pytest.mark.parametrize("sign", [b":", b"_"])
def test_the_metrics_of_sglang_under_either_name(sign: bytes) -> None:
    """The colon became an underscore in some versions."""
    text = b"""sglang%bnum_queue_reqs{dp_rank="0"} 2.0
sglang%bnum_running_reqs{dp_rank="0"} 3.0
sglang%btoken_usage{dp_rank="0"} 0.5
sglang%bpage_size{dp_rank="0"} 64
sglang%bmax_total_num_tokens{dp_rank="0"} 4096.0
sglang%bprompt_tokens_total{dp_rank="0"} 7
"""
    text = text.replace(b"%b", sign)

    assert Load(2, 3, 0.5, 64, 7) == read_load(text, DIALECTS["sglang"])
    assert 4096 == read_cache(text, DIALECTS["sglang"]).kv_tokens


def test_the_load_of_sglang_at_this_moment() -> None:
    """Of all ranks or of one; anything else is no load."""
    body = msgspec.json.encode(
        {
            "version": "0.5.23",
            "loads": [
                {"dp_rank": 0, "num_waiting_reqs": 1, "token_usage": 0.1, "num_running_reqs": 9},
                {"dp_rank": 1, "num_waiting_reqs": 2, "token_usage": 0.4},
            ],
        }
    )

    assert Load(3, 9, 0.4) == read_loads(body)
    assert Load(2, None, 0.4) == read_loads(body, 1)
    assert Load() == read_loads(body, 5)
    assert (None, None) == (read_loads(b"[]"), read_loads(b"\xff"))


@pytest.mark.parametrize("labels", [b'num_gpu_blocks="None"', b'num_gpu_blocks="1e9"', b'block_size=""'])
def test_a_capacity_that_is_no_number_is_unknown(labels: bytes) -> None:
    """As vLLM writes None before it has profiled itself."""
    text = b'vllm:cache_config_info{enable_prefix_caching="None",%b} 1.0\n' % labels
    facts = read_cache(text, DIALECTS["vllm"])

    assert (None, None) == (facts.kv_tokens, facts.caches)
    assert () == lacking(facts, VLLM)


def test_what_sglang_is_set_to() -> None:
    """Its own report has it all; what is off is named with its flag."""
    facts = sglang()

    assert ("SGLang", "0.5.23", 16384) == (facts.product, facts.version, facts.kv_tokens)
    assert 16 == facts.block_size
    assert (True, False, False) == (facts.caches, facts.reports_cached, facts.takes_priority)
    assert KvSource("tcp://10.0.0.8:5567", "tcp://10.0.0.8:5568", "kv-events") == facts.kv_source
    assert "--enable-cache-report" in lacking(facts, SGLANG)[0]
    assert "--disable-radix-cache" in lacking(sglang(disable_radix_cache=True), SGLANG)[0]
    assert () == lacking(sglang(enable_cache_report=True), SGLANG)


def test_each_rank_of_sglang_publishes_on_its_own_port() -> None:
    """One address of several ranks has no one publisher, and is asked to be named by ranks."""
    body = msgspec.json.encode({**SGLANG_INFO, "dp_size": 4, "enable_cache_report": True})
    third, whole = read_server_info(body, of_rank(SGLANG, 2)), read_server_info(body, SGLANG)

    assert third is not None
    assert whole is not None
    assert KvSource("tcp://10.0.0.8:5569", "tcp://10.0.0.8:5570", "kv-events") == third.kv_source
    assert (None, 4 * 16384, 16384) == (whole.kv_source, whole.kv_tokens, third.kv_tokens)
    assert "`rank` 0 to 3" in lacking(whole, SGLANG)[0]
    assert () == lacking(third, of_rank(SGLANG, 2))


@pytest.mark.parametrize(
    "kv_events", [None, "on", {}, {"endpoint_port_base": "x"}, {"endpoint_port_base": 0}]
)
def test_events_that_are_off_or_unreadable_are_no_source(kv_events: object) -> None:
    """The rest is known all the same."""
    facts = sglang(kv_events=kv_events)
    assert (None, "0.5.23") == (facts.kv_source, facts.version)


SOURCES = [
    {"data_parallel_rank": 0, "endpoint": "tcp://*:5557", "replay_endpoint": None, "topic": ""},
    {
        "data_parallel_rank": 1,
        "endpoint": "tcp://10.0.0.99:41001",
        "replay_endpoint": "tcp://0.0.0.0:41002",
        "topic": "kv-events",
    },
]


VLLM_0_32 = b"""{"0":{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:18357",\
"replay_endpoint":"tcp://*:18358","buffer_steps":10000,"hwm":100000,"max_queue_size":100000,"topic":""}}"""
"""As a running one said it."""


def test_where_vllm_0_32_publishes() -> None:
    """Its settings by rank; without events the answer is empty."""
    assert KvSource("tcp://10.0.0.7:18357", "tcp://10.0.0.7:18358") == read_kv_sources(VLLM_0_32, VLLM)
    assert None is read_kv_sources(VLLM_0_32, of_rank(VLLM, 1))
    assert None is read_kv_sources(b"{}", VLLM)


@pytest.mark.parametrize("shape", ["ranks", "wrapped", "bare"])
def test_where_vllm_publishes_in_every_shape(shape: str) -> None:
    """By rank, or a list, bare or under a name; everywhere means the node's own host."""

    def told(sources: list[Any], spec: NodeSpec) -> KvSource | None:
        ranks = {str(one["data_parallel_rank"]): one for one in sources}
        body = {"ranks": ranks, "wrapped": {"sources": sources}, "bare": sources}[shape]
        return read_kv_sources(msgspec.json.encode(body), spec)

    assert KvSource("tcp://10.0.0.7:5557") == told(SOURCES[:1], VLLM)
    assert KvSource("tcp://10.0.0.7:5557") == told(SOURCES, of_rank(VLLM, 0))
    second = KvSource("tcp://10.0.0.99:41001", "tcp://10.0.0.7:41002", "kv-events")
    assert second == told(SOURCES, of_rank(VLLM, 1))
    assert None is told(SOURCES, VLLM)
    assert None is told([], VLLM)


@pytest.mark.parametrize(
    "endpoint",
    [
        "ipc:///run/kv.sock",
        "tcp://169.254.169.254:80",
        "tcp://[::ffff:169.254.169.254]:80",
        "tcp://10.0.0.1",
        "tcp://10.0.0.1:99999",
        "inproc://x",
        "",
    ],
)
def test_a_node_cannot_send_the_gateway_anywhere(endpoint: str) -> None:
    """What a node says is no order: only TCP, and no link-local address."""
    assert None is read_kv_sources(msgspec.json.encode([{"endpoint": endpoint}]), VLLM)


def test_a_node_at_an_ipv6_address_is_reached_there() -> None:
    """With its brackets."""
    spec = NodeSpec(engine="vllm", url="http://[2001:db8::1]:8000")
    assert KvSource("tcp://[2001:db8::1]:5557") == read_kv_sources(msgspec.json.encode(SOURCES[:1]), spec)


def test_llama_cpp_tells_the_context_of_a_slot() -> None:
    """The model's own is longer where slots share it."""
    body = b'{"default_generation_settings":{"n_ctx":2048,"params":{}},"total_slots":4,"build_info":"b9876"}'
    facts = read_props(body)

    assert EngineFacts(product="llama.cpp", version="b9876", caches=True, context=2048) == facts
    assert None is read_props(b'{"version":"1"}')


def test_ollama_tells_its_context_only_of_models_that_it_has_loaded() -> None:
    """Where it is not known, the operator is told: what is too long is cut without a word."""
    body = b"""{"models":[
      {"name":"llama3:latest","model":"llama3:latest","size":1,"context_length":4096},
      {"name":"other:latest","context_length":1024},
      {"name":"qwen:latest","context_length":2048}
    ]}"""

    assert 2048 == read_running_models(body, frozenset({"llama3:latest", "qwen:latest"}))
    assert None is read_running_models(body, frozenset({"absent"}))
    assert None is read_running_models(b'{"models":[{"name":"m"}]}', frozenset({"m"}))
    unknown = EngineFacts(product="Ollama", version="0.12.0", reports_cached=False)
    told = " ".join(lacking(unknown, OTHER))
    assert "OLLAMA_CONTEXT_LENGTH" in told
    assert "Ollama cannot" in told
    assert () == lacking(EngineFacts(product="Ollama", context=4096), OTHER)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"version":7}'])
def test_what_makes_no_sense_is_unknown(body: bytes) -> None:
    """Of every path; nothing is raised and nothing guessed."""
    assert (None, None, None) == (read_version(body), read_props(body), read_server_info(body, SGLANG))
    assert None is read_kv_sources(body, VLLM)
    assert None is read_running_models(body, frozenset({"m"}))
    assert () == lacking(EngineFacts(), VLLM)


def test_a_missing_report_of_vllm_is_named_with_its_flag() -> None:
    """Without it every hit is only expected."""
    assert "--enable-prompt-tokens-details" in lacking(EngineFacts(reports_cached=False), VLLM)[0]
