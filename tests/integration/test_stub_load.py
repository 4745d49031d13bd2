"""The stub node under load: the queue, the time model, the metrics, and clients that leave."""

import asyncio
import json
from functools import partial

import pytest

from bench.stub_node.asking import CHAT, events, local_node, metric, until, user
from bench.stub_node.engine import Engine


def is_waiting(engine: Engine) -> bool:
    return engine.waiting == 1


class TestLoad:
    async def test_requests_beyond_the_limit_wait_and_are_counted(self) -> None:
        """One runs, two wait, as /metrics and /v1/loads say; in the end all are served."""
        async with local_node(engine="sglang", max_running=1, decode_rate=200) as (stub, client):
            tasks = [asyncio.create_task(client.post(CHAT, json=user("Hi", max_tokens=40))) for _ in range(3)]
            await until(lambda: stub.node.engine.waiting == 2)
            gauges = [
                await metric(client, f"sglang:{name}") for name in ("num_running_reqs", "num_queue_reqs")
            ]
            load = (await client.get("/v1/loads")).json()["loads"][0]
            answers = await asyncio.gather(*tasks)

        assert [1.0, 2.0] == gauges
        assert (1, 2) == (load["num_running_reqs"], load["num_waiting_reqs"])
        assert [200, 200, 200] == [answer.status_code for answer in answers]

    async def test_full_queue_is_503_on_vllm_and_an_error_event_on_sglang(self) -> None:
        """SGLang has sent its 200 before it knows; without a stream it is a plain 503."""
        seen = {}
        for engine in ("vllm", "sglang"):
            async with local_node(engine=engine, max_running=1, max_waiting=1, decode_rate=5) as (
                stub,
                client,
            ):
                busy = [
                    asyncio.create_task(client.post(CHAT, json=user("Hi", max_tokens=50))) for _ in range(2)
                ]
                await until(partial(is_waiting, stub.node.engine))
                stream = await client.post(CHAT, json=user("Hi", stream=True))
                whole = await client.post(CHAT, json=user("Hi"))
                seen[engine] = (stream.status_code, stream.text, whole.status_code)
                for task in busy:
                    task.cancel()
                await asyncio.gather(*busy, return_exceptions=True)

        assert (503, 503) == (seen["vllm"][0], seen["vllm"][2])
        assert (200, 503) == (seen["sglang"][0], seen["sglang"][2])
        assert "SERVICE_UNAVAILABLE" == events(seen["sglang"][1])[0]["error"]["type"]

    async def test_burst_with_a_common_prefix_prefills_it_once(self) -> None:
        """Prompts are prefilled one after the other, so the second finds what the first has computed."""
        async with local_node(block_size=1, prefill_rate=4000) as (_, client):
            same = "word " * 100
            tasks = [client.post(CHAT, json=user(f"{same} {n}", max_tokens=1)) for n in range(3)]
            answers = await asyncio.gather(*tasks)

        cached = sorted(a.json()["usage"]["prompt_tokens_details"]["cached_tokens"] for a in answers)
        assert 0 == cached[0]
        assert all(tokens > 90 for tokens in cached[1:])

    async def test_prefill_and_decode_take_the_time_that_the_rates_say(self) -> None:
        """Never faster than the model: uncached tokens over one rate, then a gap for each further token."""
        async with local_node(prefill_rate=1000, decode_rate=100) as (_, client):
            loop = asyncio.get_running_loop()
            start = loop.time()
            answer = (await client.post(CHAT, json=user("word " * 60, max_tokens=11))).json()
            spent = loop.time() - start

        assert spent >= answer["usage"]["prompt_tokens"] / 1000 + 10 / 100

    @pytest.mark.parametrize(
        ("engine", "running", "hits", "queries"),
        [
            (
                "vllm",
                "vllm:num_requests_running",
                "vllm:prefix_cache_hits_total",
                "vllm:prefix_cache_queries_total",
            ),
            ("sglang", "sglang:num_running_reqs", "sglang:cached_tokens_total", "sglang:prompt_tokens_total"),
            (
                "openai",
                "llamacpp:requests_processing",
                "llamacpp:prompt_tokens_cached_total",
                "llamacpp:prompt_tokens_total",
            ),
        ],
    )
    async def test_metrics_agree_with_what_was_answered(
        self, engine: str, running: str, hits: str, queries: str
    ) -> None:
        """The engine's own names carry the sums of the `usage` blocks."""
        prompt = cached = 0
        async with local_node(engine=engine) as (_, client):
            for _ in range(3):
                usage = (await client.post(CHAT, json=user("word " * 50))).json()["usage"]
                prompt += usage["prompt_tokens"]
                cached += usage["prompt_tokens_details"]["cached_tokens"]
            seen = [await metric(client, name) for name in (running, hits, queries)]

        computed = prompt - cached if engine == "openai" else prompt
        assert cached > 0
        assert [0.0, cached, computed] == seen

    async def test_vllm_config_metric_sizes_the_cache(self) -> None:
        """What routers read to tune their index."""
        async with local_node(engine="vllm", block_size=32, blocks=1000) as (_, client):
            text = (await client.get("/metrics")).text

        (line,) = [line for line in text.splitlines() if line.startswith("vllm:cache_config_info")]
        assert 'block_size="32"' in line
        assert 'num_gpu_blocks="1000"' in line


LEAVING = {
    "while it waits in the queue": ({"max_running": 1, "decode_rate": 5.0}, True),
    "during the prefill": ({"prefill_rate": 1.0}, False),
    "in mid-stream": ({"decode_rate": 5.0}, False),
}


class TestDisconnect:
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("case", list(LEAVING))
    async def test_client_that_leaves_is_aborted_at_once(self, case: str, stream: bool) -> None:
        """Its place and its blocks are free again, and the abort is counted, in every phase."""
        traits, behind_another = LEAVING[case]
        async with local_node(**traits) as (stub, client):
            engine = stub.node.engine
            tasks = (
                [asyncio.create_task(client.post(CHAT, json=user("Hi", max_tokens=500)))]
                if behind_another
                else []
            )
            await until(lambda: engine.running == len(tasks))
            reader, writer = await asyncio.open_connection("127.0.0.1", int(stub.url.rsplit(":", 1)[1]))
            body = json.dumps(user("Hello", stream=stream, max_tokens=500)).encode()
            writer.write(
                b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
            )
            await until(lambda: engine.running + engine.waiting == len(tasks) + 1)
            if stream:
                await reader.readuntil(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            await until(lambda: stub.node.traffic.aborted == 1)
            left = (engine.running, engine.waiting)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: engine.running == 0)

        assert (len(tasks), 0) == left
        assert 0 == engine.cache.held_blocks
        assert engine.totals.ended["abort"] == 1 + len(tasks)

    async def test_aborted_answer_stays_cached_as_far_as_it_was_computed(self) -> None:
        """What was prefilled before the client left serves the next request."""
        async with local_node(block_size=1, decode_rate=50) as (stub, client):
            async with client.stream(
                "POST", CHAT, json=user("Hello there", stream=True, max_tokens=500)
            ) as answer:
                async for line in answer.aiter_lines():
                    if '"content":"' in line and '"content":""' not in line:
                        break
            await until(lambda: stub.node.engine.running == 0)
            usage = (await client.post(CHAT, json=user("Hello there", max_tokens=1))).json()["usage"]

        assert usage["prompt_tokens"] - 1 == usage["prompt_tokens_details"]["cached_tokens"]
