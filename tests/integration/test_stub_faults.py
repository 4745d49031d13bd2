"""The stub node as it fails when told to."""

import json
from typing import Any

import httpx
import pytest

from bench.stub_node.asking import CHAT, Said, events, local_node, until, user


async def lines_until_the_end(client: httpx.AsyncClient, got: list[str], **how: Any) -> None:
    """Stream an answer and put its non-empty lines into `got` as they come."""
    async with client.stream("POST", CHAT, json=user("Hi", stream=True), **how) as answer:
        async for line in answer.aiter_lines():
            got += [line] if line else []


class TestFaults:
    async def test_status_fault_strikes_the_asked_number_of_times(self) -> None:
        """After `skip` requests, `times` times, with body and headers as given."""
        fault = {
            "kind": "status", "status": 429, "times": 2, "skip": 1,
            "body": {"slow": "down"}, "headers": {"retry-after": "7"},
        }  # fmt: skip
        async with local_node() as (stub, client):
            assert 200 == (await client.post("/stub/faults", json=fault)).status_code
            answers = [await client.post(CHAT, json=user("Hi")) for _ in range(5)]

        assert [200, 429, 429, 200, 200] == [answer.status_code for answer in answers]
        assert ({"slow": "down"}, "7") == (answers[1].json(), answers[1].headers["retry-after"])
        assert (5, 3, 2) == (
            stub.node.traffic.requests,
            stub.node.traffic.finished,
            stub.node.traffic.refused,
        )

    @pytest.mark.parametrize(("engine", "code"), [("vllm", 500), ("sglang", 503), ("openai", 503)])
    async def test_status_fault_without_a_body_speaks_the_engines_dialect(
        self, engine: str, code: int
    ) -> None:
        """The envelope is the engine's own."""
        async with local_node(engine=engine) as (_, client):
            await client.post("/stub/faults", json={"kind": "status", "status": code})
            said = (await client.post(CHAT, json=user("Hi"))).json()

        assert code == (said if engine == "sglang" else said["error"])["code"]

    async def test_probes_neither_meet_nor_use_up_a_fault_for_requests(self) -> None:
        """A router that polls /v1/models meanwhile does not spoil a counted fault."""
        async with local_node() as (_, client):
            await client.post("/stub/faults", json={"kind": "status", "status": 500, "times": 1})
            seen = [
                (await client.get("/v1/models")).status_code,
                (await client.post(CHAT, json=user("Hi"))).status_code,
                (await client.post(CHAT, json=user("Hi"))).status_code,
            ]

        assert [200, 500, 200] == seen

    async def test_fault_on_all_paths_leaves_the_switch_itself_alone(self) -> None:
        """A node that fails everywhere can still be healed."""
        async with local_node() as (_, client):
            await client.post("/stub/faults", json={"kind": "status", "status": 500, "path": "/"})
            broken = [(await client.get(path)).status_code for path in ("/health", "/v1/models", "/metrics")]
            await client.post("/stub/faults", json=[])

            assert ([500, 500, 500], 200) == (broken, (await client.get("/health")).status_code)

    async def test_health_check_can_fail_alone(self) -> None:
        """A fault with a path leaves other paths alone."""
        async with local_node() as (_, client):
            await client.post("/stub/faults", json=[{"kind": "status", "status": 503, "path": "/health"}])
            seen = [
                (await client.get("/health")).status_code,
                (await client.post(CHAT, json=user("Hi"))).status_code,
            ]

        assert [503, 200] == seen

    @pytest.mark.parametrize("fault", [{"kind": "silence"}, {"kind": "slow_headers", "seconds": 30}])
    async def test_silent_node_gives_no_byte_and_counts_the_client_that_gives_up(self, fault: Said) -> None:
        """The connection is taken and nothing comes."""
        async with local_node() as (stub, client):
            await client.post("/stub/faults", json=fault)
            with pytest.raises(httpx.ReadTimeout):
                await client.post(CHAT, json=user("Hi"), timeout=0.3)
            await until(lambda: stub.node.traffic.aborted == 1)

    async def test_slow_headers_come_in_the_end(self) -> None:
        """A slow node is slow, not broken."""
        async with local_node() as (_, client):
            await client.post("/stub/faults", json={"kind": "slow_headers", "seconds": 0.05, "times": 1})

            assert 200 == (await client.post(CHAT, json=user("Hi"))).status_code

    @pytest.mark.parametrize("chunks", [0, 3])
    async def test_cut_drops_the_connection_after_the_asked_events(self, chunks: int) -> None:
        """The client has exactly `chunks` events, no [DONE], and a broken connection."""
        got: list[str] = []
        async with local_node() as (stub, client):
            await client.post("/stub/faults", json={"kind": "cut_after_chunks", "chunks": chunks})
            with pytest.raises(httpx.TransportError):
                await lines_until_the_end(client, got)

        assert chunks == len(got)
        assert 1 == stub.node.traffic.aborted

    async def test_cut_breaks_a_whole_answer_in_its_middle(self) -> None:
        """Fewer bytes than announced, then the connection is gone."""
        async with local_node() as (_, client):
            await client.post("/stub/faults", json={"kind": "cut_after_chunks"})
            with pytest.raises(httpx.TransportError):
                await client.post(CHAT, json=user("Hi"))

    async def test_stall_keeps_the_connection_open_and_silent(self) -> None:
        """Two events, then nothing until the client leaves; the engine's place is taken meanwhile."""
        got: list[str] = []
        async with local_node() as (stub, client):
            await client.post("/stub/faults", json={"kind": "stall_after_chunks", "chunks": 2})
            with pytest.raises(httpx.ReadTimeout):
                await lines_until_the_end(client, got, timeout=0.3)
            await until(lambda: stub.node.traffic.aborted == 1)

            assert 0 == stub.node.engine.running

        assert 2 == len(got)

    async def test_broken_chunk_is_one_bad_line_among_good_ones(self) -> None:
        """A data line that is not JSON, and then the stream goes on to its end."""
        async with local_node(answer_tokens=4) as (_, client):
            await client.post("/stub/faults", json={"kind": "broken_chunk_after", "chunks": 2})
            body = (await client.post(CHAT, json=user("Hi", stream=True))).text

        lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
        assert "[DONE]" == lines[-1]
        with pytest.raises(json.JSONDecodeError):
            json.loads(lines[2])
        assert 6 == len([json.loads(line) for place, line in enumerate(lines[:-1]) if place != 2])

    async def test_first_event_can_be_an_error_under_status_200(self) -> None:
        """SGLang's full queue, on demand."""
        async with local_node(engine="sglang") as (_, client):
            await client.post("/stub/faults", json={"kind": "http200_error_first_event"})
            stream = await client.post(CHAT, json=user("Hi", stream=True))
            whole = await client.post(CHAT, json=user("Hi"))

        assert (200, 503) == (stream.status_code, whole.status_code)
        assert [503] == [event["error"]["code"] for event in events(stream.text)]

    async def test_refusing_node_is_reachable_by_its_control_port_only(self) -> None:
        """Connections are refused while the fault is set; then the node is back on the same port."""
        async with (
            local_node() as (stub, client),
            httpx.AsyncClient(base_url=stub.control_url, trust_env=False) as control,
        ):
            await client.get("/health")
            await control.post("/stub/faults", json={"kind": "refuse"})
            with pytest.raises(httpx.ConnectError):
                await client.get("/health")
            await control.post("/stub/faults", json=[])

            assert 200 == (await client.get("/health")).status_code
            assert 404 == (await control.get("/v1/models")).status_code

    @pytest.mark.parametrize(
        "fault", [{"kind": "nosuch"}, {"kind": "status", "when": 1}, {"kind": "refuse", "times": 1}, [1]]
    )
    async def test_fault_that_makes_no_sense_is_refused(self, fault: Any) -> None:
        """A test with a typing error fails instead of testing nothing."""
        async with local_node() as (stub, client):
            answer = await client.post("/stub/faults", json=fault)

        assert 400 == answer.status_code
        assert [] == stub.node.faults.current
