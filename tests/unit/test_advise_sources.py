"""Dialogues as they are listened to: from files, whole or from where it stopped; counted or estimated."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.advise.asking import node_asked
from gateway.advise.counting import TokenCounter
from gateway.advise.generator import People, generated
from gateway.advise.source import Heard
from gateway.advise.talk import KEPT_TURNS, Listener
from gateway.cli.advise_sources import FromFile, MadeUp
from gateway.errors import BadOption
from history.conversation import Memory, Reply, Turn
from history.message import digests, message
from history.sketch import persona_tokens, sized
from tests.likelihood_node import likelihood_node


def line(turns: int, persona: str = "You are Ada.") -> str:
    said: list[dict[str, Any]] = [{"role": "system", "content": persona}]
    for at in range(turns):
        said += [
            {"role": "user", "content": f"hello {at}"},
            {"role": "assistant", "content": f"well {at} then"},
        ]
    return json.dumps({"messages": said})


def file(folder: Path, *lines: str) -> Path:
    path = folder / "talk.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def turn(*said: tuple[str, str], tokens: int = 0, answer: int = 0, prompt: int = 0) -> Turn:
    messages = [message({"role": role, "content": text}) for role, text in said]
    return Turn(
        messages=tuple(one.json for one in messages),
        digests=digests(messages),
        tokens=tokens,
        reply=Reply(completion_tokens=answer, prompt_tokens=prompt),
    )


async def all_of(source: FromFile | MadeUp, *known: int) -> list[Heard]:
    return [one async for one in source.heard(frozenset(known))]


async def test_reading_goes_on_behind_what_is_known(tmp_path: Path) -> None:
    """Each dialogue once, whichever were known."""
    path = file(tmp_path, line(3), line(5), "", line(7), line(2))
    every = await all_of(FromFile(path, None))
    places = [one.place for one in every]

    assert [one.sketch.turn_count for one in every] == [3, 5, 7, 2]
    assert places == [1, 2, 4, 5]
    assert [one.place for one in await all_of(FromFile(path, None), 1, 2)] == [4, 5]
    assert [one.place for one in await all_of(FromFile(path, None), *places)] == []
    assert every[-1].progress == path.stat().st_size


async def test_wrong_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    every = await all_of(FromFile(file(tmp_path, line(3), "{", '{"messages": 5}', line(4)), None))
    assert [one.sketch.turn_count for one in every] == [3, 4]
    assert every[-1].wrong == 2


async def test_a_file_without_a_dialogue_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"talk\.jsonl:1"):
        await all_of(FromFile(file(tmp_path, "[]"), None))
    with pytest.raises(BadOption, match="is empty"):
        await all_of(FromFile(file(tmp_path, ""), None))


async def test_dialogues_of_one_persona_share_it(tmp_path: Path) -> None:
    one, same, other = await all_of(FromFile(file(tmp_path, line(3), line(4), line(3, "You are Bo.")), None))
    assert one.sketch.persona_key == same.sketch.persona_key != other.sketch.persona_key
    assert one.sketch.character == same.sketch.character != other.sketch.character


async def test_made_up_people_are_found_again_by_their_number() -> None:
    people = People(dialogues=5)
    every = await all_of(MadeUp(people, 1))
    assert [one.sketch for one in every] == list(generated(people, 1))
    assert [one.place for one in await all_of(MadeUp(people, 1), 1, 3)] == [2, 4, 5]


async def test_a_nodes_tokenizer_counts_what_stands_around_a_message_too(tmp_path: Path) -> None:
    """Its template has a word before and one behind each message."""
    with likelihood_node() as node:
        async with node_asked("vllm", node.url, "m", "") as asked:
            counter = TokenCounter(asked)
            await counter.start()
            (heard,) = await all_of(FromFile(file(tmp_path, line(2)), counter))
    assert list(heard.sketch.asked) == [4, 4]
    assert list(heard.sketch.answered) == [5, 5]
    assert heard.sketch.persona == 5


def test_the_engines_own_usage_goes_before_every_estimate() -> None:
    measured = sized(turn(("user", "hello"), ("assistant", "well"), tokens=100, answer=70))
    known_whole = sized(turn(("user", "hello"), ("assistant", "well"), tokens=100))
    estimated = sized(turn(("user", "x" * 400), ("assistant", "y" * 800)))

    assert (measured.asked, measured.answered, measured.is_measured) == (30, 70, True)
    assert (known_whole.asked + known_whole.answered, known_whole.is_measured) == (100, True)
    assert estimated.answered > 200 > estimated.asked > 100
    assert not estimated.is_measured


def test_a_persona_is_what_the_first_prompt_had_beside_its_message() -> None:
    first = turn(("user", "hello"), ("assistant", "well"), tokens=100, answer=70, prompt=830)
    assert persona_tokens(b"x" * 40, first) == 800
    assert persona_tokens(b"x" * 40, turn(("user", "hello"), ("assistant", "well"))) == 10


def test_a_turn_without_an_answer_has_none() -> None:
    assert sized(turn(("user", "hello"))).answered == 0


def test_of_a_long_dialogue_only_the_last_words_are_kept() -> None:
    listener = Listener(persona=b"", character="", memories=(Memory(4, 1, "She likes tea." * 10),))
    for at in range(KEPT_TURNS + 50):
        listener.take(turn(("user", f"hello {at}"), ("assistant", "well")))
    talk = listener.talk()
    assert talk.sketch.turn_count == KEPT_TURNS + 50
    assert len(talk.turns) == KEPT_TURNS
    assert talk.sketch.summary > 30
