"""Who is held out for the evaluation: users, never rows, by a hash that does not change. Pure."""

import xxhash

_SPAN = 2**64


def is_held_out(user: str, share: float, *, salt: str = "") -> bool:
    """Whether a user's dialogues belong to the evaluation: about `share` of all users, the same ones
    always.
    """
    digest = xxhash.xxh3_64_intdigest(f"split\0{salt}\0{user}".encode("utf-8", "surrogatepass"))
    return digest < share * _SPAN
