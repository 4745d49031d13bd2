"""Events of a row of texts go on and are kept as they would be one by one."""

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import NodeBroke
from gateway.nodes import completion, sse
from gateway.nodes.relay import StreamShape, StreamSink
from gateway.nodes.text_row import TextRow
from gateway.ports import Headers, Pausable

USAGE = {"id": "c", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
HOSTILE = ['"', "\\", "\n", "\u2028", "\U0001f30a", '"},"x":[', "error", "[DONE]", "\n\ndata: [DONE]\n\n"]
PIECES = st.lists(st.text(max_size=6) | st.sampled_from(HOSTILE), max_size=12)


class Client:
    """A reply that keeps what it is sent."""

    is_started = is_finished = False

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        self.is_started = True

    def write(self, data: bytes) -> None:
        self.got.append(data)

    def finish(self) -> None: ...

    def attach(self, source: Pausable | None) -> None: ...

    def hold_together(self) -> None: ...


class Alone(TextRow):
    """Never finds another event of its row."""

    def text_of(self, event: bytes) -> bytes | None:
        return None


def sink_of(client: Client, *, has_row: bool = True) -> StreamSink:
    shape = StreamShape(headers=(), drops_usage=True, holds_end=True, keeps_events=True)
    sink = StreamSink(client, shape, on_first=lambda: None, on_comment=lambda: None)
    if not has_row:
        sink._row = Alone()
    return sink


def event(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "c", "created": 5, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % msgspec.json.encode(chunk)


def row(*pieces: str) -> list[bytes]:
    return [event(content=piece) for piece in pieces]


def fed(sink: StreamSink, blobs: Sequence[bytes]) -> StreamSink:
    for blob in blobs:
        sink.feed(blob)
    return sink


@given(
    pieces=PIECES,
    form=st.sampled_from(["plain", "roles", "logprobs", "CRLF", "comments", "finish with text"]),
    cut=st.integers(1, 400),
)
def test_a_row_changes_nothing(pieces: list[str], form: str, cut: int) -> None:
    """Whatever is in the texts, wherever the node's writes are cut."""
    texts = row(*pieces)
    if form == "roles":
        texts = [event(role="assistant", content=piece) for piece in pieces]
    if form == "logprobs":
        texts = [
            text.replace(b"null", b'{"content":[{"token":"%d"}]}' % at, 1) for at, text in enumerate(texts)
        ]
    end = event("stop", content="z") if form == "finish with text" else event("stop")
    usage = b"data: %b\n\n" % msgspec.json.encode(USAGE)
    sent = [event(role="assistant", content=""), *texts, end, usage, b"data: [DONE]\n\n"]
    if form == "CRLF":
        sent = [one.replace(b"\n", b"\r\n") for one in sent]
    if form == "comments":
        sent = [b": still there\n\n" + one for one in sent]
    whole = b"".join(sent)
    for blobs in (sent, [whole[at : at + cut] for at in range(0, len(whole), cut)]):
        plain, client = Client(), Client()
        one_by_one, sink = fed(sink_of(plain, has_row=False), blobs), fed(sink_of(client), blobs)

        assert client.got == plain.got
        assert completion.from_events(sink.events) == completion.from_events(one_by_one.events)
        assert (sink.is_done, sink.last) == (one_by_one.is_done, one_by_one.last)
        sink.let_go()
        one_by_one.let_go()
        assert client.got == plain.got


def test_many_texts_are_kept_as_one_event() -> None:
    """And no text of another shape among them is lost or comes late."""
    words = [f"w{number} " for number in range(40)]
    between = event(content="between", name="assistant")
    sink = fed(sink_of(Client()), [*row(*words), between, *row(*words), event("stop")])

    assert completion.from_events(sink.events).message["content"] == "".join([*words, "between", *words])
    assert len(sink.events) <= 8


def called(arguments: str) -> bytes:
    return event(content="", tool_calls=[{"index": 0, "function": {"arguments": arguments}}])


def two_choices(first: str, second: str) -> bytes:
    choices = [{"index": at, "delta": {"content": text}} for at, text in enumerate((first, second))]
    return b"data: %b\n\n" % msgspec.json.encode({"id": "c", "choices": choices})


@pytest.mark.parametrize(
    "same",
    [
        [called("1"), called("1"), called("1")],
        [two_choices("ha", "a"), two_choices("ha", "b"), two_choices("ha", "c")],
    ],
)
def test_only_texts_are_read_together(same: list[bytes]) -> None:
    """Three equal pieces of a tool call, or of another choice's text, are three and not one."""
    one_by_one = completion.from_events([*same, event("stop")])
    together = completion.from_events(fed(sink_of(Client()), [*same, event("stop")]).events)
    assert together == one_by_one


@pytest.mark.parametrize("broken", [b"half an escape \\", b"\\u12", b"a\nbreak", b'a "quote'])
def test_a_broken_text_is_not_mended_by_the_next(broken: bytes) -> None:
    """Together they might read well; the client got them as they are."""
    blobs = row(*itertools.repeat("word", 8))
    blobs[4] = blobs[4].replace(b"word", broken)
    sink = fed(sink_of(Client()), [*blobs, event("stop")])
    with pytest.raises(NodeBroke):
        completion.from_events(sink.events)


def test_an_error_behind_a_row_is_seen() -> None:
    """Nothing that matters looks like a text."""
    learned = TextRow()
    learned.learn(row("a")[0])
    for matters in (
        b'data: {"error":{"message":"m"}}\n\n',
        b"data: [DONE]\n\n",
        event("stop"),
        event("stop", content="a"),
    ):
        assert learned.text_of(matters) is None
    overlapping = row("")[0].replace(b'""', b'"')
    assert learned.text_of(overlapping) is None
    assert learned.text_of(row("b")[0]) == b"b"
    assert not sse.finishes(row("b")[0])


def test_what_is_kept_of_a_row_is_bounded() -> None:
    """As it is one by one."""
    sink = fed(sink_of(Client()), row("a", "b"))
    sink._kept = 10**12
    with pytest.raises(NodeBroke, match="too large"):
        sink.feed(row("c")[0])
