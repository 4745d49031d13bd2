"""The book of tokens and times."""

from gateway.telemetry import REMOVED, CacheKey, Score, Telemetry

SCORE = Score(
    prompt_tokens=100, completion_tokens=10, expected_tokens=90, reusable_tokens=95, cached_tokens=80
)


def key(node: str) -> CacheKey:
    """Warm turns of one model that their own node answered."""
    return CacheKey(model="m", node=node, route="bound", phase="warm")


def test_nodes_that_come_and_go_do_not_fill_the_book_and_their_tokens_stay_in_the_sums() -> None:
    """A thousand pods, one after the other."""
    telemetry = Telemetry()
    telemetry.scored(key("stays"), SCORE, now=0.0)
    for number in range(1000):
        telemetry.scored(key(f"pod-{number}"), SCORE, now=0.0)
        telemetry.first_byte[f"pod-{number}"].observe(0.1)
        telemetry.removed(f"pod-{number}")

    assert {key("stays"), key(REMOVED)} == set(telemetry.cache)
    assert 1000 == telemetry.cache[key(REMOVED)].answers
    assert 1001 * 80 == sum(tally.cached_tokens for tally in telemetry.cache.values())
    assert not telemetry.first_byte
