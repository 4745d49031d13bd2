"""What the load client sends: a companion's dialogue of 4 kB, or only the new message of a conversation.

A stateless request shares its persona with everybody and its earlier turns with the same connection's other
requests, so that a cache-aware router has the prefixes it was made for; its last message is new every time.
"""

import msgspec

PROMPT_BYTES = 4096
PERSONA_BYTES = 1024
EARLIER_MESSAGES = 6
NEW_MESSAGE_BYTES = 160

_SENTENCES = (
    "The lamps along the harbour were lit one by one. ",
    "She remembered the letter and said nothing about it. ",
    "He asked whether the last train still stopped there. ",
    "Rain had been promised since the morning. ",
    "They kept the window open to hear the street. ",
)


def text(size: int, *, seed: int) -> str:
    """Plain text of exactly `size` characters; different seeds differ from the first words on."""
    start = f"[{seed}] "
    pieces = [start]
    length = len(start)
    index = seed
    while length < size:
        sentence = _SENTENCES[index % len(_SENTENCES)]
        pieces.append(sentence)
        length += len(sentence)
        index += 1
    return "".join(pieces)[:size]


def persona() -> dict[str, str]:
    """The system message that every conversation of the benchmark shares."""
    return {"role": "system", "content": text(PERSONA_BYTES, seed=0)}


def new_message(connection: int, turn: int) -> dict[str, str]:
    """The message that nobody has sent before."""
    return {"role": "user", "content": text(NEW_MESSAGE_BYTES, seed=1_000_000 + connection * 100_000 + turn)}


def stateless_messages(connection: int, turn: int) -> list[dict[str, str]]:
    """Persona, this connection's earlier messages, and one new message: PROMPT_BYTES of text in all."""
    earlier_bytes = (PROMPT_BYTES - PERSONA_BYTES - NEW_MESSAGE_BYTES) // EARLIER_MESSAGES
    earlier = [
        {
            "role": "user" if index % 2 == 0 else "assistant",
            "content": text(earlier_bytes, seed=1 + connection * EARLIER_MESSAGES + index),
        }
        for index in range(EARLIER_MESSAGES)
    ]
    return [persona(), *earlier, new_message(connection, turn)]


def dialogue_messages(connection: int, turn: int, *, opens: bool) -> list[dict[str, str]]:
    """What a gateway with memory is sent: the new message, after the persona if it opens the dialogue."""
    return [persona(), new_message(connection, turn)] if opens else [new_message(connection, turn)]


def chat_body(model: str, messages: list[dict[str, str]], *, stream: bool) -> bytes:
    """The request's JSON, asking for usage where it asks for a stream."""
    body: dict[str, object] = {"model": model, "messages": messages, "max_tokens": 64}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def http_request(body: bytes, headers: dict[str, str]) -> bytes:
    """A whole keep-alive POST to the chat endpoint."""
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body
