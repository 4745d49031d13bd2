"""Needle cases: long dialogues of small talk in which one fact was said once, and a question about it.

Everything comes from the templates in `en.yaml` and `zh.yaml` and from a seed. A case has one asked fact;
around it lie facts of other kinds, and `near` turns that share the question's topic words but not its answer.
Question and fact were written apart: they share the words that people repeat when they come back to a
topic (sister, allergic, 生日), not the sentence, and never the answer.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from history.conversation import Turn
from history.message import digests, message

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
DISTANCES = (5, 10, 20, 35, 50, 75, 100, 200, 350, 500)

_SLOT = re.compile(r"\{(\w+)\}")
_OTHER_FACTS = 10
_NEAR_REPEATS = 2
_BEFORE = 40
_MORE_SENTENCES = 5
"""A reply goes on with fewer than so many sentences, on anything: companions talk more than users."""
_DAY_S = 86_400.0


class Kind(msgspec.Struct, frozen=True):
    """A kind of fact: how it is said, how it is asked for, and what is said beside it."""

    fact: tuple[str, ...]
    ask: tuple[str, ...]
    answer: str
    near: tuple[str, ...]
    paraphrase: tuple[str, ...]
    """How it is asked for in other words."""


class Templates(msgspec.Struct, frozen=True):
    """One language's templates. `talk` items are a user's line and two possible replies."""

    spaced: bool
    """Whether a space parts sentences."""
    pools: Mapping[str, tuple[str, ...]]
    talk: tuple[tuple[str, str, str], ...]
    kinds: tuple[Kind, ...]
    language: Language = "en"


class Exchange(msgspec.Struct, frozen=True):
    """What one turn says."""

    user: str
    reply: str


class Case(msgspec.Struct, frozen=True):
    """A dialogue, a question that follows it, and where its answer was said."""

    language: Language
    kind: int
    distance: int
    """How many turns lie between the end of the fact's turn and the question, that turn included."""
    said: tuple[Exchange, ...]
    question: str
    answer: str
    facts: tuple[int, ...]
    """The positions of all turns that say a fact or something near one, in order; the planted one's, too."""

    @property
    def planted(self) -> int:
        """The position of the turn that holds the fact."""
        return len(self.said) - self.distance


def templates(language: Language) -> Templates:
    """Read one language's templates from beside this file."""
    text = (Path(__file__).parent / f"{language}.yaml").read_text(encoding="utf-8")
    return msgspec.convert({**yaml.safe_load(text), "language": language}, Templates)


def cases(
    seed: int = 0, *, per_distance: int = 10, fact_every: int = 0, paraphrased: bool = False
) -> Iterator[Case]:
    """`per_distance` cases for each language and distance; 200 in all by default.

    `paraphrased`: asked in other words. `fact_every`: one turn in so many says another fact; 0: ten facts in
    all, whatever the length.
    """
    for language in LANGUAGES:
        told = templates(language)
        for at, distance in enumerate(DISTANCES):
            for number in range(per_distance):
                kind = (7 * at + 3 * number) % len(told.kinds)
                dice = random.Random(f"{seed}/{language}/{distance}/{number}")
                said = [small_talk(told, dice) for _ in range(distance + dice.randrange(_BEFORE))]
                others = max(0, len(said) // fact_every - _OTHER_FACTS) if fact_every else 0
                made = case(told, said, kind=kind, distance=distance, others=others, dice=dice)
                question = dice.choice(told.kinds[kind].paraphrase)
                yield msgspec.structs.replace(made, question=question) if paraphrased else made


def case(
    told: Templates,
    said: list[Exchange],
    *,
    kind: int,
    distance: int,
    others: int,
    dice: random.Random,
) -> Case:
    """One case: the topic's neighbours and other facts strewn over small talk, then the fact."""
    asked = told.kinds[kind]
    planted = len(said) - distance
    strewn = [near for near in asked.near for _ in range(_NEAR_REPEATS)]
    strewn += _facts(told, asked, others, dice)
    facts = {planted}
    for line in strewn:
        at = dice.randrange(len(said))
        if at != planted:
            said[at] = Exchange(filled(line, told, dice), said[at].reply)
            facts.add(at)
    slots: dict[str, str] = {}
    fact = filled(dice.choice(asked.fact), told, dice, slots)
    said[planted] = Exchange(fact, small_talk(told, dice).reply)
    return Case(
        language=told.language,
        kind=kind,
        distance=distance,
        said=tuple(said),
        question=filled(dice.choice(asked.ask), told, dice, slots),
        answer=filled(asked.answer, told, dice, slots),
        facts=tuple(sorted(facts)),
    )


def _facts(told: Templates, asked: Kind, more: int, dice: random.Random) -> list[str]:
    """Facts of other kinds than the asked one: about ten of different kinds, and some more of any."""
    kinds = [other for other in dice.sample(told.kinds, _OTHER_FACTS) if other is not asked]
    if more:
        kinds += dice.choices([other for other in told.kinds if other is not asked], k=more)
    return [dice.choice(kind.fact) for kind in kinds]


def small_talk(told: Templates, dice: random.Random) -> Exchange:
    """A turn about nothing in particular."""
    user, *replies = dice.choice(told.talk)
    slots: dict[str, str] = {}
    said = [filled(dice.choice(replies), told, dice, slots)]
    said += [
        filled(dice.choice(dice.choice(told.talk)), told, dice)
        for _ in range(dice.randrange(_MORE_SENTENCES))
    ]
    return Exchange(filled(user, told, dice, slots), (" " if told.spaced else "").join(said))


def filled(text: str, told: Templates, dice: random.Random, slots: dict[str, str] | None = None) -> str:
    """The template with its slots filled; `slots` keeps the values that were drawn."""
    drawn = {} if slots is None else slots

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in drawn:
            drawn[name] = dice.choice(told.pools[name])
        return drawn[name]

    return _SLOT.sub(value, text)


def turns(said: Sequence[Exchange]) -> tuple[Turn, ...]:
    """The exchanges as stored turns, one a day."""
    return tuple(_turn(one, number * _DAY_S) for number, one in enumerate(said))


def _turn(said: Exchange, at: float) -> Turn:
    user = message({"role": "user", "content": said.user})
    reply = message({"role": "assistant", "content": said.reply})
    return Turn(messages=(user.json, reply.json), digests=digests((user, reply)), at=at)
