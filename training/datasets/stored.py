"""A stored conversation as examples, each answer once and as it was served, and as preference pairs. Pure.

One example for each answer: its prompt as the model saw it, the answer, and nothing else counts
(LLaMA-Factory's `mask_history`). LLaMA-Factory can mask all answers but the last, or none; several answers
in one example would count those again that an earlier window had, or hide from later answers what they were
given with.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from history.conversation import Memory, Turn
from history.items import question_of
from history.kept_tail import said_messages
from history.memory import rendered
from training.datasets.clean import Cleaned, Cleaner, Spoken
from training.datasets.lengths import estimated
from training.datasets.lines import Example, Line, Pair, ordered
from training.datasets.rules import DatasetRules
from training.datasets.served import Certainty, Shown, shown_prompts
from training.datasets.talk import Talk, rated_turns, verdict

_JSON_BYTES = 34
"""Of a line's JSON, what is no text."""


class Served(msgspec.Struct, frozen=True, gc=False):
    """An answer that counts. `prompt_tokens`: as the engine counted them, else estimated."""

    turn: int
    example: Example
    certainty: Certainty
    prompt_tokens: int
    has_personal: bool


class Preferred(msgspec.Struct, frozen=True):
    """Two answers to one prompt. `by`: `rating` or `regeneration`."""

    turn: int
    pair: Pair
    by: str
    prompt_tokens: int
    has_personal: bool


class _Said(msgspec.Struct, frozen=True, gc=False):
    """A turn as lines."""

    spoken: tuple[Spoken, ...]
    """As it was said."""
    tailed: tuple[Spoken, ...]
    """With the tail, as prompts under its own cut show it."""
    reason: str
    """Why its answer does not count; empty where it does."""


class Reading:
    """One conversation, read once: its examples, its pairs, and why each other answer is none."""

    def __init__(self, talk: Talk, rules: DatasetRules, cleaner: Cleaner) -> None:
        self.left_out: Counter[str] = Counter()
        self._talk = talk
        self._rules = rules
        self._cleaner = cleaner
        self._rated = rated_turns(talk.ratings)
        self._said = [self._turn(turn, at) for at, turn in enumerate(talk.turns)]
        self._shown = tuple(shown_prompts(talk.conversation, talk.turns, rules.window))
        self._system: tuple[Memory | None, Cleaned] | None = None

    def answers(self) -> str:
        """What the model has said, for telling dialogues from one another."""
        return "\n".join(said.spoken[-1].line.text for said in self._said if not said.reason)

    def texts(self) -> Iterator[str]:
        """Everything that was said."""
        return (one.line.text for said in self._said for one in said.spoken)

    def examples(self) -> Iterator[Served]:
        """Each answer that counts, once; the others are in `left_out` afterwards."""
        for at, (said, shown) in enumerate(zip(self._said, self._shown, strict=True)):
            reason = said.reason
            if not reason and shown.certainty == "memory_lost" and self._rules.lost_memory == "leave_out":
                reason = "memory_lost"
            if reason:
                self.left_out[reason] += 1
                continue
            answer = said.spoken[-1]
            prompt, personal = self._prompt(at, shown)
            system = self._system_at(shown.memory)
            yield Served(
                turn=at,
                example=Example(
                    tuple(ordered([*prompt, answer.line], self._cleaner.mends)), system=system.text
                ),
                certainty=shown.certainty,
                prompt_tokens=self._tokens(at, prompt, system.text),
                has_personal=personal or answer.has_personal or bool(system.found),
            )

    def pairs(self) -> Iterator[Preferred]:
        """Answers to the same question, of which one is preferred."""
        if self._rules.pairs == "none":
            return
        for first, turns in self._talk.branches:
            if turns and first < len(self._said) and self._talk.turns[first].status == "complete":
                found = self._pair(first, turns[0])
                if found is not None:
                    yield found

    def _pair(self, at: int, other: Turn) -> Preferred | None:
        active = self._talk.turns[at]
        if question_of(active)[1] != question_of(other)[1] or other.status != "complete":
            return None
        ours, theirs = self._cleaner.spoken(active.messages[-1]), self._cleaner.spoken(other.messages[-1])
        if any(
            one.calls or one.reason or not one.line.text.strip() or not one.line.is_model
            for one in (ours, theirs)
        ):
            return None
        better = _preferred(self._verdict(active, at), self._verdict(other, at), self._rules.pairs)
        if not better or ours.line.text == theirs.line.text:
            return None
        is_active, by = better
        shown = self._shown[at]
        prompt, personal = self._prompt(at, shown)
        system = self._system_at(shown.memory)
        chosen, rejected = (ours, theirs) if is_active else (theirs, ours)
        lines = ordered(prompt, self._cleaner.mends)
        if not lines or lines[-1].is_model:
            return None
        return Preferred(
            turn=at,
            pair=Pair(tuple(lines), chosen.line, rejected.line, system=system.text),
            by=by,
            prompt_tokens=self._tokens(at, prompt, system.text),
            has_personal=personal or ours.has_personal or theirs.has_personal or bool(system.found),
        )

    def _prompt(self, at: int, shown: Shown) -> tuple[list[Line], bool]:
        """The lines before the answer of turn `at`, and whether there is personal data in them."""
        row: list[Spoken] = []
        for index in range(shown.cut, at):
            tailed = self._talk.turns[index].tailed
            said = self._said[index]
            row += said.tailed if tailed is not None and tailed.cut == shown.cut else said.spoken
        row += self._said[at].tailed[:-1]
        return [one.line for one in row], any(one.has_personal for one in row)

    def _system_at(self, memory: Memory | None) -> Cleaned:
        persona = self._talk.conversation.persona
        if memory is None:
            return self._cleaner.persona(persona)
        if self._system is None or self._system[0] is not memory:
            self._system = (memory, self._cleaner.persona(rendered(memory, persona)[1]))
        return self._system[1]

    def _tokens(self, at: int, prompt: Sequence[Line], system: str) -> int:
        counted = self._talk.turns[at].reply.prompt_tokens
        if counted:
            return counted
        return estimated(len(system) + sum(len(one.json) - _JSON_BYTES for one in prompt) + 16 * len(prompt))

    def _turn(self, turn: Turn, at: int) -> _Said:
        spoken = tuple(map(self._cleaner.spoken, said_messages(turn.messages, turn.tailed)))
        tailed = spoken
        if turn.tailed is not None:
            tailed = tuple(map(self._cleaner.spoken, turn.messages))
        return _Said(spoken, tailed, self._reason(turn, at, spoken))

    def _verdict(self, turn: Turn, at: int) -> str:
        return verdict(turn, at, self._talk.ratings) if at in self._rated else ""

    def _reason(self, turn: Turn, at: int, spoken: Sequence[Spoken]) -> str:
        """Why a turn's answer does not count; empty where it does."""
        if reason := _no_answer(turn, spoken):
            return reason
        said = self._verdict(turn, at)
        if said == "down":
            return "rated_down"
        return "not_liked" if self._rules.only_liked and said != "up" else ""


def _no_answer(turn: Turn, spoken: Sequence[Spoken]) -> str:
    """Why there is no answer of a model in a turn that can be trained on, whatever anybody thinks of it."""
    if not spoken or not spoken[-1].line.is_model:
        return "incomplete" if turn.status != "complete" else "no_model_answer"
    if spoken[-1].calls:
        return "tool_call"
    if turn.status != "complete":
        return "incomplete"
    if not spoken[-1].line.text.strip():
        return "empty_answer"
    # What stands before a first message was written by who made the character, unless a model was asked.
    if not turn.reply.model and all(one.line.is_model for one in spoken):
        return "no_model_answer"
    return next((one.reason for one in spoken if one.reason), "")


def _preferred(ours: str, theirs: str, pairs: str) -> tuple[bool, str] | None:
    """Whether the active answer is the better one, and by what that is known; None where nobody can tell."""
    if ours != theirs:
        return (ours == "up" or theirs == "down"), "rating"
    return (True, "regeneration") if pairs == "all" and not ours else None
