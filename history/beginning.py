"""What a conversation begins with, before anything is said in it. Pure."""

import msgspec

from history.message import visible_digest


class Owner(msgspec.Struct, frozen=True):
    """Whose a conversation will be, if the change is the first thing that is kept of it."""

    user: str = ""
    character: str = ""


class Beginning(msgspec.Struct, frozen=True):
    """Owner, persona and metadata, as they are kept."""

    owner: Owner = Owner()
    persona: bytes = b""
    metadata: bytes = b""
    created_at: float = 0.0
    """Unix seconds; 0: now."""


def character_of(persona: bytes) -> str:
    """The name of a character that nobody has named: its persona's digest, as in chat."""
    return visible_digest(msgspec.json.decode(persona)).hex() if persona else ""
