"""Facts planted into dialogues, and which come back when asked for, by how long ago they were said.

The needle is a line of the templates, put in front of what the user said so many turns ago; the question
comes now. Whether the window still shows that turn is known from the replay; this tells of the rest: whether
the product's own recall by words brings it back from behind the window, out of everything else that was said.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gateway.advise.needles.generator import DISTANCES, Templates, cases, filled, templates, turns
from history.conversation import Turn
from history.memory import is_chinese
from history.passage import Line, Passage, remembered
from history.recall import RecallRule, sentences
from history.recall_index import RecallIndex
from history.window import WindowRule, stateless_cut

_PER_DISTANCE = 2


class Needle(msgspec.Struct, frozen=True):
    """What became of one needle."""

    distance: int
    is_recalled: bool


class Recalled(msgspec.Struct, frozen=True):
    """By distance: how many needles lay behind the window, and how many of them came back."""

    distance: int
    asked: int
    found: int

    @property
    def share(self) -> float:
        """What comes back of what has left the window; 0 where nothing was asked."""
        return self.found / self.asked if self.asked else 0.0


def planted(said: Sequence[Turn], rule: RecallRule, window: WindowRule, *, seed: str) -> Iterator[Needle]:
    """Needles in one of the user's own dialogues, at every distance that it is long enough for."""
    passages = [remembered(at, turn, max_chars=rule.max_chars) for at, turn in enumerate(said)]
    sample = "\n".join(passage.text() for passage in passages[-5:])
    told = templates("zh" if is_chinese(sample) else "en")
    for distance in DISTANCES:
        if distance < len(passages):
            for number in range(_PER_DISTANCE):
                dice = random.Random(f"{seed}/{distance}/{number}")
                yield Needle(distance, _comes_back(passages, distance, told, dice, (rule, window)))


def built_in(rule: RecallRule, window: WindowRule, *, seed: int, per_distance: int = 10) -> Iterator[Needle]:
    """The same in the templates' own dialogues, English and Chinese."""
    for case in cases(seed, per_distance=per_distance):
        said = turns(case.said)
        passages = [remembered(at, turn, max_chars=rule.max_chars) for at, turn in enumerate(said)]
        cut = max(case.planted + 1, stateless_cut(len(said), window))
        found = _searched(passages[:cut], case.question, rule)
        yield Needle(case.distance, _has(found, case.planted, case.answer))


def summed(needles: Iterable[Needle]) -> list[Recalled]:
    """By distance, nearest first."""
    asked: dict[int, list[bool]] = {}
    for needle in needles:
        asked.setdefault(needle.distance, []).append(needle.is_recalled)
    return [Recalled(distance, len(found), sum(found)) for distance, found in sorted(asked.items())]


def _comes_back(
    passages: Sequence[Passage],
    distance: int,
    told: Templates,
    dice: random.Random,
    rules: tuple[RecallRule, WindowRule],
) -> bool:
    rule, window = rules
    kind = dice.choice(told.kinds)
    slots: dict[str, str] = {}
    fact = filled(dice.choice(kind.fact), told, dice, slots)
    question = filled(dice.choice(kind.ask), told, dice, slots)
    answer = filled(kind.answer, told, dice, slots)
    at = len(passages) - distance
    lines = (Line("user", fact), *passages[at].lines)
    said = [*passages[:at], msgspec.structs.replace(passages[at], lines=lines), *passages[at + 1 :]]
    cut = max(at + 1, stateless_cut(len(passages), window))
    return _has(_searched(said[:cut], question, rule), at, answer)


def _searched(passages: Sequence[Passage], question: str, rule: RecallRule) -> tuple[Passage, ...]:
    index = RecallIndex()
    index.add(passages, max_turns=rule.max_turns)
    found = index.search(sentences(question), rule, cut=len(passages))
    index.close()
    return found


def _has(found: Iterable[Passage], position: int, answer: str) -> bool:
    return any(one.position == position and answer in one.text() for one in found)
