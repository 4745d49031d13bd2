"""r0 of a node whose times are known: worked out, not waited for."""

import msgspec
import pytest

from gateway.advise.asking import NodeAnswer
from gateway.advise.pricing import Effort, Prices, priced
from gateway.errors import BadOption

UNCACHED_S, CACHED_STEP_S, OVERHEAD_S = 0.001, 0.00001, 0.02


class Engine:
    """Computes what it has not seen, and reads what it has at each step of its answer."""

    engine = "vllm"
    url = "http://node"
    model = "m"

    def __init__(self, *, tells: bool = True, caches: bool = True, uncached_s: float = UNCACHED_S) -> None:
        self._seen: list[list[str]] = []
        self._tells = tells
        self._caches = caches
        self._uncached_s = uncached_s
        self.bodies: list[dict[str, object]] = []

    async def post(self, path: str, body: dict[str, object]) -> NodeAnswer:
        assert path == "/v1/chat/completions"
        self.bodies.append(body)
        messages = body["messages"]
        assert isinstance(messages, list)
        words, answer = str(messages[0]["content"]).split(), int(str(body["max_tokens"]))
        cached = max((_common(words, seen) for seen in self._seen), default=0) if self._caches else 0
        self._seen.append(words)
        seconds = OVERHEAD_S + self._uncached_s * (len(words) - cached)
        seconds += CACHED_STEP_S * answer * len(words) + 0.001 * answer
        details = {"cached_tokens": cached} if self._tells else None
        usage = {"prompt_tokens": len(words), "prompt_tokens_details": details}
        return NodeAnswer(msgspec.json.encode({"usage": usage}), seconds)

    def fault(self, path: str, what: str) -> BadOption:
        return BadOption(f"{path}: {what}")


def _common(one: list[str], other: list[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


async def prices(engine: Engine, **effort: int) -> Prices:
    return await priced(engine, seed=1, effort=Effort(**effort))  # type: ignore[arg-type]


async def test_a_cached_token_costs_what_it_is_read_at_every_step() -> None:
    found = await prices(Engine(), answer_tokens=20)
    assert found.uncached_s == pytest.approx(UNCACHED_S + CACHED_STEP_S, rel=0.01)
    assert found.cached_s == pytest.approx(20 * CACHED_STEP_S, rel=0.01)
    assert found.r0 == pytest.approx(0.2, rel=0.03)
    assert found.r0_range[0] <= found.r0 <= found.r0_range[1]
    assert found.overhead_s == pytest.approx(OVERHEAD_S + 0.001, rel=0.1)
    assert found.prefill_rate == pytest.approx(1000, rel=0.02)
    assert found.was_cached is True


async def test_longer_answers_make_cached_tokens_dearer() -> None:
    short, long = [await prices(Engine(), answer_tokens=tokens) for tokens in (5, 50)]
    assert long.r0 > 5 * short.r0


async def test_what_the_node_does_not_tell_is_not_claimed() -> None:
    assert (await prices(Engine(tells=False))).was_cached is None
    assert (await prices(Engine(caches=False))).was_cached is False


async def test_no_two_prompts_begin_alike_but_those_that_should() -> None:
    engine = Engine()
    await prices(engine, rounds=2)
    firsts = [str(body["messages"][0]["content"]).split()[0] for body in engine.bodies]  # type: ignore[index]
    assert len(set(firsts)) == len(firsts) - 4


async def test_a_node_without_a_slope_is_not_priced() -> None:
    with pytest.raises(BadOption, match="did not take longer"):
        await prices(Engine(uncached_s=-CACHED_STEP_S))
