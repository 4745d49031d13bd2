"""What placements are worth by what is known of a node, as routing tells it: all of their tokens, or none."""

from gateway.routing.retention import LIKELY, Gates, Knowledge, odds


def promise(tokens: int, age_s: float, knowledge: Knowledge, gates: Gates | None = None) -> int:
    """How many of the tokens placed `age_s` seconds ago are expected."""
    return tokens if odds(age_s, knowledge, gates or Gates()) >= LIKELY else 0
