"""The stub node over HTTP: what it answers, caches and refuses, in the words of each engine."""

import asyncio
import json
import math
from pathlib import Path

import httpx
import openai
import pytest

from bench.stub_node.asking import CHAT, Said, events, local_node, streamed_text, user
from bench.stub_node.process import StubProcess, start_stub
from bench.stub_node.server import serve
from bench.stub_node.spec import ENGINES, StubSpec

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city", "days"],
            },
        },
    }
]

every_engine = pytest.mark.parametrize("engine", ENGINES)


class TestAnswers:
    @every_engine
    async def test_stream_is_role_then_tokens_then_finish_then_usage(self, engine: str) -> None:
        """The order of events that every engine keeps; usage only because it was asked for."""
        async with local_node(engine=engine, answer_tokens=5) as (_, client):
            asked = user("Hi", stream=True, stream_options={"include_usage": True})
            chunks = events((await client.post(CHAT, json=asked)).text)

        first, *middle, finish, usage = chunks
        assert "assistant" == first["choices"][0]["delta"]["role"]
        assert 5 == len(middle)
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in middle)
        assert "stop" == finish["choices"][0]["finish_reason"]
        assert [] == usage["choices"]
        assert 6 == usage["usage"]["completion_tokens"]

    @every_engine
    async def test_whole_answer_says_what_the_stream_says(self, engine: str) -> None:
        """Streaming changes the form, not the text."""
        async with local_node(engine=engine) as (_, client):
            whole = (await client.post(CHAT, json=user("Hi"))).json()
            chunks = events((await client.post(CHAT, json=user("Hi", stream=True))).text)

        assert whole["choices"][0]["message"]["content"] == streamed_text(chunks)
        assert all("usage" not in chunk for chunk in chunks)

    async def test_vllm_sends_the_finish_with_the_last_token_when_length_ends_it(self) -> None:
        """As seen on vLLM: two tokens are two chunks, the second with the finish reason."""
        async with local_node(engine="vllm") as (_, client):
            chunks = events((await client.post(CHAT, json=user("Hi", stream=True, max_tokens=2))).text)

        assert [None, None, "length"] == [chunk["choices"][0]["finish_reason"] for chunk in chunks]
        assert chunks[-1]["choices"][0]["delta"]["content"]

    @every_engine
    async def test_tool_call_fragments_join_to_the_arguments(self, engine: str) -> None:
        """A named function is called, with an argument for each required property."""
        choice = {"type": "function", "function": {"name": "get_weather"}}
        asked = user("Weather?", tools=TOOLS, tool_choice=choice)
        async with local_node(engine=engine) as (_, client):
            whole = (await client.post(CHAT, json=asked)).json()["choices"][0]
            chunks = events((await client.post(CHAT, json={**asked, "stream": True})).text)

        calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
        assert "get_weather" == calls[0]["function"]["name"]
        assert len(calls) > 3
        spoken = "".join(call["function"]["arguments"] for call in calls)
        assert {"city": "river", "days": 7} == json.loads(spoken)
        assert spoken == whole["message"]["tool_calls"][0]["function"]["arguments"]
        assert ("tool_calls", "tool_calls") == (
            whole["finish_reason"],
            chunks[-1]["choices"][0]["finish_reason"],
        )

    async def test_stop_string_ends_the_stream(self) -> None:
        """What the client sees ends before the stop string."""
        past = [{"role": "user", "content": line} for line in ("my name is Ada", "what is my name")]
        async with local_node() as (_, client):
            chunks = events(
                (await client.post(CHAT, json={"messages": past, "stop": " is", "stream": True})).text
            )

        assert "Your name" == streamed_text(chunks)
        assert ("stop", " is") == (
            chunks[-1]["choices"][0]["finish_reason"],
            chunks[-1]["choices"][0]["stop_reason"],
        )

    @every_engine
    async def test_openai_sdk_reads_chat_embeddings_and_models(self, engine: str) -> None:
        """The unmodified SDK, which asks for base64 embeddings by itself."""
        async with (
            serve(StubSpec(engine=engine, embedding_size=8)) as stub,  # type: ignore[arg-type]  # a parameter of the test
            openai.AsyncOpenAI(base_url=f"{stub.url}/v1", api_key="none", max_retries=0) as client,
        ):
            remembered = await client.chat.completions.create(
                model="stub",
                messages=[
                    {"role": "user", "content": "Hello, my name is Ada."},
                    {"role": "assistant", "content": "Nice to meet you."},
                    {"role": "user", "content": "What is my name?"},
                ],
            )
            vectors = await client.embeddings.create(model="stub", input=["a river", "the river", "stone"])
            names = [model.id async for model in client.models.list()]

        assert "Your name is Ada." == remembered.choices[0].message.content
        near, nearer, far = (item.embedding for item in vectors.data)
        assert math.isclose(1.0, sum(x * x for x in near), rel_tol=1e-6)
        assert sum(a * b for a, b in zip(near, nearer, strict=True)) > sum(
            a * b for a, b in zip(near, far, strict=True)
        )
        assert ["stub"] == names

    async def test_text_completion_takes_token_ids(self) -> None:
        """Equal ids hit the cache like equal texts."""
        asked = {"prompt": list(range(100, 140)), "max_tokens": 3}
        async with local_node() as (_, client):
            answers = [(await client.post("/v1/completions", json=asked)).json() for _ in range(2)]

        assert [0, 32] == [a["usage"]["prompt_tokens_details"]["cached_tokens"] for a in answers]
        assert "text_completion" == answers[0]["object"]

    async def test_tokenize_shows_the_prompt_of_a_chat(self) -> None:
        """What /tokenize counts is what a chat is charged."""
        async with local_node() as (_, client):
            counted = (await client.post("/tokenize", json=user("Hello there"))).json()
            charged = (await client.post(CHAT, json=user("Hello there"))).json()

        assert counted["count"] == charged["usage"]["prompt_tokens"] == len(counted["tokens"])


class TestCache:
    @pytest.mark.parametrize(("engine", "block"), [("vllm", 16), ("vllm", 32), ("sglang", 1), ("openai", 1)])
    async def test_follow_ups_report_the_expected_cached_tokens(self, engine: str, block: int) -> None:
        """Turn by turn, floor((P + C - 1) / B) * B of the turn before, at most floor((P' - 1) / B) * B."""
        past: list[Said] = [
            {"role": "system", "content": "You are a lighthouse keeper who talks about ships."}
        ]
        expected, reported = [], []
        before = 0
        async with local_node(engine=engine, block_size=block) as (_, client):
            for turn in range(6):
                past.append({"role": "user", "content": f"Question {turn}: what did you see?"})
                answer = (await client.post(CHAT, json={"messages": past})).json()
                usage = answer["usage"]
                expected.append(min(before, usage["prompt_tokens"] - 1) // block * block)
                reported.append(usage["prompt_tokens_details"]["cached_tokens"])
                before = usage["total_tokens"] - 1
                past.append(answer["choices"][0]["message"])

        assert 0 < expected[-1]
        assert [0, *expected[1:]] == reported

    @pytest.mark.parametrize("more", [{"cache_salt": "tenant-b"}, {"tools": TOOLS}])
    async def test_salt_and_tools_separate_the_cache(self, more: Said) -> None:
        """The same messages under another salt or other tools are a miss."""
        async with local_node(block_size=1) as (_, client):
            for asked in (user("Hello there, old friend"), user("Hello there, old friend", **more)):
                answer = (await client.post(CHAT, json=asked)).json()

        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] <= 2

    async def test_full_cache_forgets_the_oldest_dialogue(self) -> None:
        """Capacity in blocks is real: a small node serves few dialogues from cache."""
        long = "word " * 100
        async with local_node(block_size=16, blocks=16, context_length=256) as (stub, client):
            for text in (f"A {long}", f"B {long}", f"C {long}", f"D {long}", f"A {long}"):
                answer = (await client.post(CHAT, json=user(text, max_tokens=1))).json()

        assert 0 == answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert stub.node.engine.cache.stored_blocks <= 16

    async def test_reset_forgets_everything(self) -> None:
        """After a reset the next turn is cold."""
        async with local_node(block_size=1) as (_, client):
            await client.post(CHAT, json=user("Hello"))
            forgotten = (await client.post("/stub/reset_cache")).json()["forgotten_blocks"]
            answer = (await client.post(CHAT, json=user("Hello"))).json()

        assert forgotten > 0
        assert 0 == answer["usage"]["prompt_tokens_details"]["cached_tokens"]


class TestModels:
    async def test_vllm_refuses_unknown_models_and_sglang_answers_with_its_base(self) -> None:
        """A gateway must check names itself in front of SGLang."""
        async with local_node(engine="vllm") as (_, client):
            refused = await client.post(CHAT, json=user("Hi", model="nosuch"))
        async with local_node(engine="sglang") as (_, client):
            answered = await client.post(CHAT, json=user("Hi", model="nosuch"))

        assert 404 == refused.status_code
        assert ("NotFoundError", "model", 404) == tuple(
            refused.json()["error"][k] for k in ("type", "param", "code")
        )
        assert (200, "nosuch") == (answered.status_code, answered.json()["model"])

    async def test_vllm_adapter_is_listed_served_and_cached_apart(self, tmp_path: Path) -> None:
        """Load, list, serve, unload, with vLLM's answers."""
        (tmp_path / "adapter_config.json").write_text("{}")
        wanted = {"lora_name": "ada--1", "lora_path": str(tmp_path)}
        async with local_node(engine="vllm", block_size=1) as (_, client):
            await client.post(CHAT, json=user("Hello there"))
            loaded = await client.post("/v1/load_lora_adapter", json=wanted)
            again = await client.post("/v1/load_lora_adapter", json=wanted)
            missing = await client.post(
                "/v1/load_lora_adapter", json={"lora_name": "b", "lora_path": "/nowhere"}
            )
            cards = (await client.get("/v1/models")).json()["data"]
            answer = (await client.post(CHAT, json=user("Hello there", model="ada--1"))).json()
            gone = [
                (await client.post("/v1/unload_lora_adapter", json={"lora_name": "ada--1"})).status_code
                for _ in range(2)
            ]

        assert (200, "Success: LoRA adapter 'ada--1' added successfully.") == (
            loaded.status_code,
            loaded.text,
        )
        assert (400, "InvalidUserInput") == (again.status_code, again.json()["error"]["type"])
        assert (404, "NotFoundError") == (missing.status_code, missing.json()["error"]["type"])
        assert ("stub", str(tmp_path)) == (cards[1]["parent"], cards[1]["root"])
        assert ("ada--1", 0) == (answer["model"], answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert [200, 404] == gone

    async def test_sglang_adapter_is_chosen_after_a_colon(self) -> None:
        """`anything:adapter` picks the adapter, the bare adapter name does not, an unknown one is refused."""
        async with local_node(engine="sglang") as (_, client):
            await client.post(CHAT, json=user("Hello there"))
            loaded = await client.post(
                "/load_lora_adapter", json={"lora_name": "ad1", "lora_path": "hub/ad1"}
            )
            cached = [
                (await client.post(CHAT, json=user("Hello there", model=name))).json()["usage"][
                    "prompt_tokens_details"
                ]["cached_tokens"]
                for name in ("ad1", "stub:ad1")
            ]
            unknown = await client.post(CHAT, json=user("Hi", model="stub:zz"))
            gone = await client.post("/unload_lora_adapter", json={"lora_name": "zz"})

        assert (True, {"ad1": "hub/ad1"}) == (loaded.json()["success"], loaded.json()["loaded_adapters"])
        assert cached[0] > 0
        assert 0 == cached[1]
        assert 400 == unknown.status_code
        assert unknown.json()["message"].startswith("Got LoRA adapter that has never been loaded: zz")
        assert (400, False) == (gone.status_code, gone.json()["success"])


class TestRefusals:
    async def test_each_engine_words_a_long_prompt_its_own_way(self) -> None:
        """The three envelopes and the words by which a gateway knows `context_length_exceeded`."""
        said = {}
        for engine in ENGINES:
            async with local_node(engine=engine, context_length=64) as (_, client):
                answer = await client.post(CHAT, json=user("word " * 100, stream=True))
                said[engine] = answer.json()
                assert 400 == answer.status_code

        assert "This model's maximum context length is 64 tokens." in said["vllm"]["error"]["message"]
        assert 400 == said["vllm"]["error"]["code"]
        assert "is longer than the model's context length (64 tokens)." in said["sglang"]["message"]
        assert ("error", 400) == (said["sglang"]["object"], said["sglang"]["code"])
        assert ("exceed_context_size_error", 64) == (
            said["openai"]["error"]["type"],
            said["openai"]["error"]["n_ctx"],
        )

    @every_engine
    @pytest.mark.parametrize(
        "body", [b"{bad", b"", b'{"messages":"x"}', b'{"messages":[{"role":1}]}', b"\xff"]
    )
    async def test_bad_body_is_a_400_and_counted_as_refused(self, engine: str, body: bytes) -> None:
        """Nothing malformed gets further than the door."""
        async with local_node(engine=engine) as (stub, client):
            answer = await client.post(CHAT, content=body)

        assert 400 == answer.status_code
        assert (1, 0) == (stub.node.traffic.refused, stub.node.traffic.finished)

    async def test_api_key_guards_v1_and_not_the_health_check(self) -> None:
        """As on the engines: /v1 needs the key, /health and /metrics do not."""
        async with local_node(api_key="k") as (_, client):
            bare = (await client.get("/v1/models")).status_code
            keyed = (await client.get("/v1/models", headers={"authorization": "Bearer k"})).status_code
            open_paths = [(await client.get(path)).status_code for path in ("/health", "/metrics", "/ready")]

        assert (401, 200, [200, 200, 200]) == (bare, keyed, open_paths)


class TestProcess:
    @staticmethod
    async def chat(stub: StubProcess, asked: Said, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=stub.url, trust_env=False) as client:
            return await client.post(CHAT, json=asked, headers=headers)

    async def test_process_serves_counts_and_remembers_the_last_requests(self) -> None:
        """What a test asserts on: counters, bodies and headers, the newest fifty."""
        async with start_stub(StubSpec(engine="sglang", model="tiny", block_size=4)) as stub:
            answer = await self.chat(stub, user("Hello there"), **{"x-session-id": "s1"})
            stats = await stub.stats()

        usage = answer.json()["usage"]
        assert (1, 1, 0, 0) == tuple(stats[k] for k in ("requests", "finished", "aborted", "running"))
        assert (usage["prompt_tokens"], usage["completion_tokens"], 4) == (
            stats["prompt_tokens"],
            stats["completion_tokens"],
            stats["block_size"],
        )
        (last,) = stats["recent"]
        assert ("s1", user("Hello there")) == (last["headers"]["x-session-id"], last["body"])

    async def test_process_takes_faults_and_resets(self) -> None:
        """The handle's methods reach the node."""
        async with start_stub() as stub:
            await stub.set_faults({"kind": "status", "status": 500})
            broken = (await self.chat(stub, user("Hi"))).status_code
            await stub.set_faults()
            healed = (await self.chat(stub, user("word " * 20))).status_code
            await stub.reset_cache()
            stored = (await stub.stats())["blocks_stored"]

        assert (500, 200, 0) == (broken, healed, stored)

    async def test_process_refuses_and_returns_as_soon_as_it_is_told(self) -> None:
        """When the switch has been answered, it holds: no connection slips in or is turned away after it."""
        seen = []
        async with start_stub() as stub:
            for _ in range(5):
                await stub.set_faults({"kind": "refuse"})
                with pytest.raises(httpx.ConnectError):
                    await self.chat(stub, user("Hi"))
                await stub.set_faults()
                seen.append((await self.chat(stub, user("Hi"))).status_code)

        assert [200] * 5 == seen

    async def test_killed_process_is_gone_and_its_port_refuses(self) -> None:
        """A crash, for failover tests."""
        async with start_stub() as stub:
            stub.kill()
            assert -9 == await stub.process.wait()
            with pytest.raises(httpx.ConnectError):
                await self.chat(stub, user("Hi"))

    async def test_process_ends_with_its_standard_input(self) -> None:
        """A parent that is killed leaves no orphan: its end of the pipe closes."""
        async with start_stub() as stub:
            assert stub.process.stdin is not None
            stub.process.stdin.close()

            assert 0 == await asyncio.wait_for(stub.process.wait(), 10)

    async def test_spec_that_cannot_be_is_refused_with_the_reason(self) -> None:
        """A cache smaller than the context is an error at the start, not a request that waits for ever."""
        with pytest.raises(ValueError, match="raise blocks or lower context_length"):
            StubSpec(blocks=4, context_length=4096)
