"""Held-out replies scored over real HTTP, by nodes that answer as vLLM and SGLang do."""

import msgspec
import pytest

from gateway.advise.asking import node_asked
from gateway.advise.likelihood_probe import LikelihoodProbe, held_out
from gateway.advise.talk import Listener, Talk
from gateway.errors import BadOption
from gateway.routing.node import Engine
from history.conversation import Turn
from history.likelihood import Scored
from history.message import digests, message
from tests.likelihood_node import LIKELY, UNLIKELY, likelihood_node

BACK = 4
"""Each reply repeats two words of so many turns ago."""
WINDOWS = (1, 2, 3, 4, 5, 8)


def talk(turns: int, name: str = "t") -> Talk:
    """Turns that say new words, and repeat two of those said `BACK` turns ago."""
    listener = Listener(persona=message({"role": "system", "content": "You are Ada."}).json, character="ada")
    for at in range(turns):
        said = (
            message({"role": "user", "content": f"{name}{at} asks"}),
            message(
                {
                    "role": "assistant",
                    "content": f"a{name}{at} b{name}{at} a{name}{at - BACK} b{name}{at - BACK}",
                }
            ),
        )
        listener.take(Turn(messages=tuple(one.json for one in said), digests=digests(said)))
    return listener.talk()


async def scored(engine: Engine, context: int = 100_000, turns: int = 20) -> list[Scored]:
    with likelihood_node(engine, context=context) as node:
        async with node_asked(engine, node.url, "m", "") as asked:
            held = held_out(talk(turns), "dialogue", per_dialogue=3, most_turns=8)
            return [one async for one in LikelihoodProbe(asked).scores(held, WINDOWS)]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
async def test_a_window_helps_as_far_back_as_the_reply_reaches(engine: Engine) -> None:
    """Two of four tokens become likely as soon as the turn that said them is in the window."""
    found = await scored(engine)
    assert len(found) == 3
    for one in found:
        assert one.tokens == 4
        assert one.nats[BACK - 1] == pytest.approx(4 * UNLIKELY)
        assert one.nats[BACK] == one.nats[8] == pytest.approx(2 * UNLIKELY + 2 * LIKELY)


async def test_windows_that_do_not_fit_the_models_context_are_left_out() -> None:
    found = await scored("vllm", context=60)
    assert all(1 in one.nats and 8 not in one.nats for one in found)


async def test_a_window_longer_than_the_dialogue_shows_all_of_it() -> None:
    found = await scored("vllm", turns=6)
    (last,) = [one for one in found if one.turn == 5]
    assert last.nats[5] == last.nats[8]


async def test_the_prompt_is_the_persona_the_window_and_the_message() -> None:
    """And the reply is sent as its own tokens behind it."""
    with likelihood_node() as node:
        async with node_asked("vllm", node.url, "m", "") as asked:
            (held,) = held_out(talk(12), "d", per_dialogue=1, most_turns=8)
            assert [one async for one in LikelihoodProbe(asked).scores([held], [2])]
    (rendered,) = [body for path, body in node.asked if path == "/tokenize" and "messages" in body]
    (sent,) = [body for path, body in node.asked if path == "/v1/completions"]
    roles = [one["role"] for one in rendered["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert rendered["messages"][-1]["content"] == "t11 asks"
    assert rendered["add_generation_prompt"] is True
    assert (sent["prompt_logprobs"], sent["max_tokens"]) == (1, 1)


async def test_replies_are_held_out_where_most_was_said_before() -> None:
    held = held_out(talk(30), "d", per_dialogue=3, most_turns=8)
    assert all(len(one.before) == 8 for one in held)
    assert len({one.turn for one in held}) == 3
    assert held_out(talk(4), "d", per_dialogue=3, most_turns=8) == []
    assert [len(one.before) for one in held_out(talk(6), "d", per_dialogue=3, most_turns=8)] == [5, 4]


async def test_llama_cpp_cannot_and_says_so() -> None:
    async with node_asked("openai", "http://127.0.0.1:1", "m", "") as asked:
        with pytest.raises(BadOption, match=r"llama\.cpp.*vllm=URL"):
            LikelihoodProbe(asked)


async def test_an_engine_that_answers_otherwise_is_named() -> None:
    """SGLang's address behind `vllm=`: there is no such path, and the message says which."""
    with likelihood_node("sglang") as node:
        async with node_asked("vllm", node.url, "m", "") as asked:
            held = held_out(talk(12), "d", per_dialogue=1, most_turns=8)
            with pytest.raises(BadOption, match="/v1/completions: answered 404"):
                assert [one async for one in LikelihoodProbe(asked).scores(held, [2, 3])]


async def test_a_node_that_is_away_is_said_to_be() -> None:
    async with node_asked("vllm", "http://127.0.0.1:1", "m", "") as asked:
        with pytest.raises(BadOption, match="cannot be reached"):
            await asked.post("/tokenize", {"prompt": "x"})


def test_what_is_kept_of_a_reply_is_numbers() -> None:
    """The state file is no copy of the dialogues."""
    one = Scored("d", 1, "ada", 4, {1: -4.0})
    assert b"asks" not in msgspec.msgpack.encode(one)
