"""Events are told apart at any cut and by bytes that no text inside them can imitate."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes import sse

TEXTS = st.text(max_size=30) | st.sampled_from(
    [
        '"finish_reason":"stop"',
        '"choices":[]',
        "data: [DONE]",
        'data: {"error"',
        "\n\ndata: [DONE]\n\n",
        "\r\n\r\n",
    ]
)
GAPS = st.sampled_from([b"\n\n", b"\r\n\r\n"])


def event(text: str, gap: bytes = b"\n\n") -> bytes:
    """A chunk that says this."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + gap


@given(st.lists(TEXTS, max_size=6), GAPS, st.data())
def test_any_cut_gives_whole_events_and_loses_nothing(
    texts: list[str], gap: bytes, data: st.DataObject
) -> None:
    """However the stream arrives, what is passed on ends at an event's end, and all of it is passed on."""
    stream = b"".join(event(text, gap) for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    blobs, rest = [], b""
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        blob, rest = sse.split_complete(rest + stream[start:stop])
        assert not blob or blob.endswith(gap)
        blobs.append(blob)

    assert (stream, b"") == (b"".join(blobs), rest)
    assert [event(text, gap) for text in texts] == [one for blob in blobs for one in sse.events(blob)]


@given(st.binary(max_size=30).map(lambda data: data.replace(b"x", b"\n\n")))
def test_split_never_invents_or_drops_bytes(data: bytes) -> None:
    """Also of what is no stream at all."""
    blob, rest = sse.split_complete(data)
    assert data == blob + rest
    assert not blob or blob.endswith((b"\n\n", b"\r\n\r\n"))


@given(TEXTS)
def test_no_text_imitates_a_mark(text: str) -> None:
    """A model may write whatever it likes."""
    blob = event(text)
    marks = (sse.finishes(blob), sse.has_no_choices(blob), sse.is_done(blob), sse.until_error(blob)[1])
    assert (False, False, False, b"") == marks


def test_blank_lines_between_events_are_no_events() -> None:
    """An empty event goes with what precedes the next one."""
    assert (b"\n\n", b"abc") == sse.split_complete(b"\n\nabc")
    assert (b"", b"\nabc") == sse.split_complete(b"\nabc")


def test_finish_is_seen_with_and_without_a_space() -> None:
    """Engines encode either way; null is no finish."""
    assert sse.finishes(b'data: {"choices":[{"finish_reason":"stop"}]}\n\n')
    assert sse.finishes(b'data: {"choices": [{"finish_reason": "length"}]}\n\n')
    assert not sse.finishes(b'data: {"choices":[{"finish_reason":null}]}\n\n')


def test_end_mark_is_seen_wherever_it_stands() -> None:
    """Alone, behind others, without the space, with the other line ending."""
    for blob in (b"data: [DONE]\n\n", b"data:[DONE]\n\n", event("x") + b"data: [DONE]\n\n",
                 event("x", b"\r\n\r\n") + b"data: [DONE]\r\n\r\n"):  # fmt: skip
        assert sse.is_done(blob)


def test_events_before_an_error_are_told_apart_from_it() -> None:
    """What was said before it can still be shown."""
    error = b'data: {"error":{"message":"boom"}}\n\n'
    assert (event("a") + event("b"), error) == sse.until_error(event("a") + event("b") + error + event("c"))
    assert (b"", error) == sse.until_error(error)
    assert (event("a"), b"") == sse.until_error(event("a"))


def test_payloads_leave_out_comments_and_names() -> None:
    """Only data lines carry chunks."""
    blob = b": ping\n\nevent: message\nid: 7\ndata: {}\n\ndata:[DONE]\r\n\r\n"
    assert [b"{}", b"[DONE]"] == list(sse.payloads([blob]))


@given(st.lists(st.tuples(TEXTS, GAPS), max_size=8))
def test_events_may_end_in_two_ways(said: list[tuple[str, bytes]]) -> None:
    """A proxy's pings among an engine's events: none is lost, none sticks to the next."""
    sent = [event(text, gap) for text, gap in said]
    assert list(sse.events(b"".join(sent))) == sent
