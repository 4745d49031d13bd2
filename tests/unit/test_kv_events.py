"""Reading KV events: every form that an engine has used says the same, and nothing it sends raises."""

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stub_node.kv_forms import Cleared, KvForm, Removed, Stored
from gateway.nodes import kv_events
from gateway.nodes.kv_events import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    EndOfReplay,
    Frame,
    Malformed,
    read_batch,
    read_frames,
    replay_request,
    token_ids,
    with_rank,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "kv_events"
GOLDEN = sorted(path.stem for path in FIXTURES.glob("*.bin"))
TS = 1789095808.8378847
SIGNED = (-8970181431921507452, 1234567890123456789, -1)
UNSIGNED = (15760518052499183552, 1234567890123456789, 2**64 - 1)
DIGESTS = tuple(bytes([first]) + bytes(range(1, 32)) for first in (1, 2, 255))
TOKENS = [151644, 872, 198, 9064, 374, 279, 6722, 315]


def golden(name: str) -> tuple[Frame, Batch]:
    """A recorded message, framed and decoded."""
    frame = read_frames(msgspec.msgpack.decode((FIXTURES / f"{name}.bin").read_bytes(), type=list[bytes]))
    assert isinstance(frame, Frame)
    batch = read_batch(frame.payload)
    assert isinstance(batch, Batch)
    return frame, batch


def hashes_of(name: str) -> tuple[Any, ...]:
    """The hashes that the story of this file is told with."""
    if name == "half_digests":
        return tuple(digest[:16] for digest in DIGESTS)
    if name.startswith("sglang"):
        return SIGNED
    is_bytes = any(part in name for part in ("0_20", "0_32")) or name == "vllm_maps_in_a_map"
    return DIGESTS if is_bytes else UNSIGNED


def encoded(*events: Any, ts: float = TS) -> bytes:
    return msgspec.msgpack.encode([ts, list(events), 0])


def read(*events: Any) -> Batch:
    batch = read_batch(encoded(*events))
    assert isinstance(batch, Batch)
    return batch


def test_there_are_golden_messages() -> None:
    """A wrong folder would make the tests over them pass."""
    assert len(GOLDEN) >= 19


@pytest.mark.parametrize("name", GOLDEN)
def test_every_form_tells_the_same_story(name: str) -> None:
    """Rows or maps, signed, unsigned or bytes, with a topic or none, live or replayed: one meaning."""
    frame, batch = golden(name)
    first, second, third = hashes_of(name)
    stored, more, removed, cleared = batch.events
    assert isinstance(stored, BlockStored)
    assert isinstance(more, BlockStored)
    assert isinstance(removed, BlockRemoved)

    assert 7 == frame.seq
    assert (TS, 0, []) == (batch.ts, batch.unread, list(batch.unknown))
    assert ([first, second], None) == (stored.block_hashes, stored.parent_block_hash)
    assert ([third], second) == (more.block_hashes, more.parent_block_hash)
    assert (4, TOKENS, TOKENS[:4]) == (stored.block_size, token_ids(stored), token_ids(more))
    assert [third] == removed.block_hashes
    assert AllBlocksCleared() == cleared


def test_the_optional_fields_of_every_version_are_read() -> None:
    """What a version adds is found by name in maps and by place in rows."""
    stored = {name: golden(name)[1].events[0] for name in GOLDEN}
    groups = {name: (event.group_idx, event.kv_cache_spec_kind) for name, event in stored.items()}
    media = {name: event.medium for name, event in stored.items()}

    assert (0, "full_attention") == groups["vllm_0_20_rows_with_groups"] == groups["vllm_0_32_maps"]
    assert (None, None) == groups["vllm_0_9_rows"] == groups["sglang_0_5_23_maps"]
    assert ("GPU", None) == (media["sglang_0_5_rows_with_salt"], media["sglang_0_4_rows"])
    salted = stored["sglang_0_5_23_maps_with_salt"]
    assert ("s", "ad1") == (salted.cache_salt, salted.lora_name)
    assert [None] == msgspec.msgpack.decode(stored["vllm_0_26_maps"].extra_keys)
    assert 0 == golden("vllm_0_20_rows_with_groups")[1].events[2].group_idx


@pytest.mark.parametrize(
    ("name", "seq", "said"),
    [
        ("vllm_0_32_live", 91, [("BlockRemoved", 1, None), ("BlockStored", 2, 64)]),
        ("vllm_0_32_replayed", 1, [("BlockStored", 1, 32)]),
        ("sglang_0_5_23_live", 81, [("BlockRemoved", 2, None), ("BlockStored", 2, 32)]),
        ("sglang_0_5_23_stored", 2, [("BlockStored", 2, 32)]),
        ("sglang_0_5_23_replayed", 0, [("AllBlocksCleared", 0, None)]),
    ],
)
def test_messages_of_running_engines_are_read(name: str, seq: int, said: list[tuple[str, int, int]]) -> None:
    """Recorded from vLLM 0.32.0 and SGLang 0.5.23 while they served: blocks, and the tokens in them."""
    frame, batch = golden(f"seen/{name}")
    read_out = [
        (
            type(event).__name__,
            len(getattr(event, "block_hashes", ())),
            len(token_ids(event) or ()) if isinstance(event, BlockStored) else None,
        )
        for event in batch.events
    ]
    assert (seq, b"kv-events", 0, 0) == (frame.seq, frame.topic, batch.rank, batch.unread)
    assert said == read_out
    assert {"GPU"} >= {event.medium for event in batch.events if not isinstance(event, AllBlocksCleared)}


@pytest.mark.parametrize(
    ("name", "topic", "rank"),
    [
        ("vllm_0_9_rows", b"", 0),
        ("vllm_0_9_rows_without_rank", b"", None),
        ("vllm_0_26_maps", b"kv-events", 0),
        ("vllm_maps_in_a_map", b"kv@10.0.0.7@qwen", 0),
        ("vllm_maps_in_a_map_without_rank", b"", None),
        ("vllm_0_32_replayed", b"kv-events", 0),
        ("vllm_0_26_replayed_without_topic", b"", 0),
        ("sglang_0_5_23_maps_null_rank", b"", None),
        ("other_frames_only", b"", 0),
    ],
)
def test_topic_and_rank_are_optional(name: str, topic: bytes, rank: int | None) -> None:
    """Older engines say neither, and a replay may lack the topic."""
    frame, batch = golden(name)
    assert (topic, rank) == (frame.topic, batch.rank)


def test_an_event_of_another_type_is_counted_and_the_others_are_read() -> None:
    """Engines add events; that must not cost the known ones."""
    known = {"type": "BlockRemoved", "block_hashes": [1]}
    batch = read({"type": "BlockMigrated", "to": "CPU"}, ["BlockPinned", [1]], known, {"type": "X" * 99})

    assert ["BlockMigrated", "BlockPinned", "X" * 40] == list(batch.unknown)
    assert (0, [BlockRemoved(block_hashes=[1])]) == (batch.unread, batch.events)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "BlockStored"},
        {"type": "BlockStored", "block_hashes": [1.5]},
        {"type": "BlockRemoved", "block_hashes": "all"},
        {"type": "BlockRemoved", "block_hashes": [1], "medium": 7},
        ["BlockStored"],
        ["BlockRemoved", [None]],
        {"kind": "BlockRemoved"},
        {"type": 5},
        [],
        "AllBlocksCleared",
        None,
        12,
    ],
)
def test_an_event_that_cannot_be_read_is_counted_apart(event: Any) -> None:
    """What it said is lost, which costs trust; what stands beside it is read."""
    batch = read(event, {"type": "AllBlocksCleared"})
    assert (1, [AllBlocksCleared()], []) == (batch.unread, batch.events, list(batch.unknown))


def test_fields_that_nobody_needs_may_hold_anything() -> None:
    """A changed type of a field that routing does not read costs nothing."""
    odd = {
        "type": "BlockStored",
        "block_hashes": [1],
        "token_ids": [[1, 2], [2, 3]],
        "lora_id": "seven",
        "lora_name": 7,
        "extra_keys": {"a": [1]},
        "cache_salt": 3,
        "new_field": [{}],
    }
    (event,) = read(odd).events
    assert isinstance(event, BlockStored)
    assert ([1], None) == (event.block_hashes, token_ids(event))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x93",
        b"\x80",
        b"\x90",
        b"{}",
        b"\xff" * 40,
        b"\x91" * 100_000,
        b"\x92\xcb" + struct.pack(">d", 1.0) + b"\x91" * 100_000,
        b"\x92\xcb" + struct.pack(">d", 1.0) + b"\x91" + b"\x91" * 100_000,
        b"\x92\xcb" + struct.pack(">d", float("nan")) + b"\x90",
        b"\x92\xcb" + struct.pack(">d", float("inf")) + b"\x90",
        msgspec.msgpack.encode(["now", [], 0]),
        msgspec.msgpack.encode([1.0, {"a": 1}, 0]),
        msgspec.msgpack.encode({"ts": 1.0}),
        encoded({"type": "AllBlocksCleared"})[:-1],
    ],
    ids=range(16),
)
def test_garbage_is_a_value(payload: bytes) -> None:
    """Whatever a node sends, the feed goes on; the reason says what was wrong without quoting it."""
    assert isinstance(read_batch(payload), Malformed)


def test_sizes_are_bounded_before_anything_is_allocated() -> None:
    """A header that claims four billion events or hashes costs nothing."""
    ts = b"\xcb" + struct.pack(">d", 1.0)
    claims = b"\x92" + ts + b"\xdd\xff\xff\xff\xff"
    hashes = b"\x92\xacBlockRemoved\xdd\xff\xff\xff\xff"

    assert isinstance(read_batch(claims), Malformed)
    assert isinstance(read_batch(bytes(kv_events.MAX_PAYLOAD + 1)), Malformed)
    assert isinstance(read_frames([b"", bytes(8), bytes(kv_events.MAX_PAYLOAD + 1)]), Malformed)
    batch = read_batch(b"\x92" + ts + b"\x91" + hashes)
    assert isinstance(batch, Malformed) or 1 == batch.unread


@pytest.mark.parametrize(
    "frames",
    [[], [b"x"], [b"", b"1234567", b""], [b"", b"123456789", b"x"], [b""] * 5, [b"topic", b"", b"payload"]],
)
def test_a_message_of_other_frames_is_a_value(frames: list[bytes]) -> None:
    """Its sequence number is what a message cannot do without."""
    assert isinstance(read_frames(frames), Malformed)


@pytest.mark.parametrize("front", [[], [b""], [b"", b""], [b"", b"kv-events"]])
def test_the_end_of_a_replay_is_seen_in_every_framing(front: list[bytes]) -> None:
    """It has the number -1 and no payload, with a topic or without."""
    assert isinstance(read_frames([*front, b"\xff" * 8, b""]), EndOfReplay)


def test_a_replay_is_asked_for_as_the_engines_expect() -> None:
    """An empty frame, as REQ would send it, then the first number wanted."""
    assert [b"", b"\0\0\0\0\0\0\1\2"] == replay_request(258)


def test_a_rank_has_the_port_of_its_number() -> None:
    """Data-parallel ranks publish on the ports after the first one's."""
    assert ("tcp://a:5557", "tcp://[::1]:5560") == (
        with_rank("tcp://a:5557", 0),
        with_rank("tcp://[::1]:5557", 3),
    )
    with pytest.raises(ValueError, match="no port"):
        with_rank("ipc:///run/kv", 1)


hashes = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4)
stories = st.lists(
    st.one_of(
        st.builds(Stored, hashes=hashes, parent=st.none() | st.integers(0, 2**64 - 1), block_size=st.just(2)),
        st.builds(Removed, hashes=hashes),
        st.just(Cleared()),
    ),
    max_size=6,
)
FORMS = [
    KvForm(events=events, batch=batch, hashes=kind)
    for events in ("map", "row")
    for batch in ("row", "map")
    for kind in ("unsigned", "signed", "bytes")
]


def plain(hash_: int | bytes) -> int:
    """A hash whatever it came as."""
    if isinstance(hash_, bytes):
        return int.from_bytes(hash_, "big")
    return hash_ % (1 << 64)


def told(payload: bytes) -> list[tuple[Any, ...]]:
    """What a batch says, with hashes made comparable."""
    batch = read_batch(payload)
    assert isinstance(batch, Batch)
    assert (0, ()) == (batch.unread, tuple(batch.unknown))
    return [
        (
            type(event).__name__,
            *(plain(one) for one in getattr(event, "block_hashes", ())),
            None if (parent := getattr(event, "parent_block_hash", None)) is None else plain(parent),
            token_ids(event) if isinstance(event, BlockStored) else None,
        )
        for event in batch.events
    ]


@given(stories)
def test_all_forms_decode_to_the_same_events(story: list[Stored | Removed | Cleared]) -> None:
    """Whatever is told, the form does not matter."""
    said = [told(form.encode(TS, story)) for form in FORMS]
    assert [said[0]] * len(FORMS) == said
    assert len(story) == len(said[0])


@given(st.binary(max_size=200))
def test_no_bytes_raise(payload: bytes) -> None:
    """The decoder is total."""
    assert isinstance(read_batch(payload), Batch | Malformed)


@given(stories, st.data())
def test_no_damage_raises(story: list[Stored | Removed | Cleared], data: st.DataObject) -> None:
    """A batch with one byte changed, or cut short, is another batch or none."""
    payload = bytearray(data.draw(st.sampled_from(FORMS)).encode(TS, story))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    assert isinstance(read_batch(bytes(payload)), Batch | Malformed)
    assert isinstance(read_batch(bytes(payload[:cut])), Batch | Malformed)


@given(st.lists(st.binary(max_size=12), max_size=6))
def test_no_frames_raise(frames: list[bytes]) -> None:
    """Nor do messages of any shape."""
    assert isinstance(read_frames(frames), Frame | EndOfReplay | Malformed)
