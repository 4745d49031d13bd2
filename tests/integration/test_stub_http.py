"""The HTTP/1.1 of the stub node, byte by byte."""

import asyncio
import json

from bench.stub_node.asking import CHAT, events, local_node, user
from bench.stub_node.server import LocalStub


class TestHttp:
    @staticmethod
    async def exchange(stub: LocalStub, *parts: bytes) -> bytes:
        """Write the parts one by one and read until the node closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(stub.url.rsplit(":", 1)[1]))
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        return answer

    async def test_request_split_at_every_byte_is_answered(self) -> None:
        """Where TCP cuts does not matter."""
        body = json.dumps(user("Hi", max_tokens=2)).encode()
        head = b"POST %b HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (
            CHAT.encode(),
            len(body),
        )
        whole = head + body
        async with local_node() as (stub, _):
            answer = await self.exchange(stub, *(whole[n : n + 1] for n in range(len(whole))))

        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Three requests in one packet: three answers, the slow first one first."""
        async with local_node(decode_rate=100) as (stub, _):
            body = json.dumps(user("Hi", max_tokens=5)).encode()
            answer = await self.exchange(
                stub,
                b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
                + b"GET /version HTTP/1.1\r\n\r\nGET /nosuch HTTP/1.1\r\nconnection: close\r\n\r\n",
            )

        places = [answer.index(mark) for mark in (b"chat.completion", b'"version"', b"Not Found")]
        assert sorted(places) == places

    async def test_http_1_0_client_gets_a_stream_that_ends_with_the_connection(self) -> None:
        """No chunked framing for a client that does not know it."""
        body = json.dumps(user("Hi", stream=True)).encode()
        async with local_node() as (stub, _):
            answer = await self.exchange(
                stub, b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
            )

        head, _, streamed = answer.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert events(streamed.decode())

    async def test_large_body_that_waits_for_100_continue_is_answered(self) -> None:
        """As curl sends it."""
        body = json.dumps(user("Hi", max_tokens=2)).encode()
        head = b"POST %b HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        async with local_node() as (stub, _):
            answer = await self.exchange(stub, head % (CHAT.encode(), len(body)), body)

        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")

    async def test_idle_connection_is_closed_by_the_node(self) -> None:
        """The keep-alive limit that pools must stay below."""
        async with local_node(keep_alive=0.05) as (stub, _):
            answer = await self.exchange(stub, b"GET /health HTTP/1.1\r\n\r\n")

        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")

    async def test_garbage_gets_400(self) -> None:
        """What is not HTTP ends the connection."""
        async with local_node() as (stub, _):
            answer = await self.exchange(stub, b"\x16\x03\x01 hello\r\n\r\n")

        assert answer.startswith(b"HTTP/1.1 400 ")
