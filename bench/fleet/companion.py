"""People who talk with characters: sessions of about 23 turns, minutes between messages and hours between
sessions, a few characters that everybody wants.

Lengths and pauses are log-normal with the medians that published traces and products have: 30 tokens a
message, 120 an answer, 120 s between an answer and the next message (95 % within ten minutes). A dialogue
goes on over many sessions and ends after at most `dialogue_turns`; then its user begins another.
"""

import random
from collections.abc import Iterable, Iterator
from math import exp, log

import msgspec

from bench.fleet.dialogue import Dialogue, Layout
from bench.fleet.keeper import Keeper, Unknowing
from bench.fleet.prompt import Prompt, Request
from bench.fleet.simulation import Arrival
from gateway.advise.generator import length, seconds


class Crowd(msgspec.Struct, frozen=True):
    """Who talks, and how. Times in seconds, lengths in tokens."""

    users: int = 600
    personas: int = 50
    zipf: float = 1.0
    user_median: float = 30.0
    user_sigma: float = 0.8
    answer_median: float = 120.0
    answer_sigma: float = 0.6
    gap_median: float = 120.0
    gap_sigma: float = 1.0
    session_median: float = 15.0
    session_sigma: float = 0.9
    away_median: float = 7200.0
    away_sigma: float = 0.8
    """The pause between two sessions."""
    dialogue_turns: int = 120
    memory_output: int = 250
    begins_within: float = 0.0
    """Where set, everybody's first message comes in so many seconds; else all is as in the long run."""
    is_new: bool = False
    """Whether nobody has a dialogue behind them at the start."""
    sessions: int = 0
    """How many sessions a user stays for; 0: for ever."""
    returns_at: float = 0.0
    """Where set, everybody's second message comes then, or at most `returns_within` later."""
    returns_within: float = 10.0
    ends_at: float = 4 * 3600.0
    """Nobody asks after that."""
    measured_from: float = 3600.0

    def active_share(self) -> float:
        """The share of users who are in a session, in the long run."""
        session = exp(log(self.session_median) + self.session_sigma**2 / 2)
        talking = session * exp(log(self.gap_median) + self.gap_sigma**2 / 2)
        return talking / (talking + exp(log(self.away_median) + self.away_sigma**2 / 2))

    def working_set(self, layout: Layout) -> int:
        """Tokens of everybody who is in a session, with windows at their mean, and of the personas."""
        turn = exp(log(self.user_median) + self.user_sigma**2 / 2)
        turn += exp(log(self.answer_median) + self.answer_sigma**2 / 2)
        shown = layout.window.min_turns
        if layout.mode != "sliding":
            shown = (layout.window.min_turns + layout.window.max_turns) // 2
        own = shown * turn + layout.memory_tokens * (layout.mode == "gateway")
        return int(self.users * self.active_share() * own + self.personas * layout.persona_tokens)


class _User:
    """One person: their dice, their dialogue, and how long they still stay."""

    __slots__ = ("begun", "dialogue", "dice", "has_returned", "left", "number", "sessions")

    def __init__(self, number: int, dice: random.Random) -> None:
        self.number = number
        self.dice = dice
        self.dialogue: Dialogue
        self.begun = 0
        self.left = 0
        self.sessions = 0
        self.has_returned = False


class Companions:
    """The traffic of a crowd. With `gateway` prompts it also makes memories and warms prefixes."""

    def __init__(
        self, crowd: Crowd, layout: Layout, *, seed: int, prewarm: bool = True, keeper: Keeper | None = None
    ) -> None:
        self._crowd = crowd
        self._layout = layout
        self._seed = seed
        self._prewarm = prewarm
        self._keeper = keeper or Unknowing()
        weights = [1 / (rank + 1) ** crowd.zipf for rank in range(crowd.personas)]
        self._popular = [sum(weights[: rank + 1]) for rank in range(crowd.personas)]

    def begin(self) -> Iterable[Arrival]:
        """Everybody's first message: in the middle of a session, or of a pause between two."""
        return [self._first(number) for number in range(self._crowd.users)]

    def request(self, source: object, now: float) -> Request | None:
        """The next message, or a call in the background."""
        if isinstance(source, tuple):
            user, prompt, output = source
            return self._background(user, prompt, output, now)
        assert isinstance(source, _User)
        crowd, dice, dialogue = self._crowd, source.dice, source.dialogue
        if now > crowd.ends_at:
            return None
        if self._layout.mode == "gateway":
            self._keeper.before(dialogue, now)
        said = length(dice, crowd.user_median, crowd.user_sigma)
        return Request(
            prompt=dialogue.ask(said),
            output_tokens=length(dice, crowd.answer_median, crowd.answer_sigma),
            key=dialogue.id,
            conversation=dialogue.id,
            is_measured=now >= crowd.measured_from,
            source=source,
        )

    def ended(self, request: Request, now: float) -> Iterator[Arrival]:
        """The next message after a pause; before it, what the gateway does between turns."""
        user = request.source
        if request.kind != "turn" or not isinstance(user, _User):
            return
        dialogue = user.dialogue
        if request.is_broken:
            dialogue.give_up()
        else:
            dialogue.answer(request.output_tokens)
            if self._layout.mode == "gateway":
                yield from self._upkeep(user, now)
        pause = self._pause(user, now)
        if pause is not None:
            yield now + pause, user

    def _upkeep(self, user: _User, now: float) -> Iterator[Arrival]:
        dialogue = user.dialogue
        has_cut = dialogue.recut()
        self._keeper.after(dialogue, has_cut=has_cut)
        if (stretch := dialogue.memory_due()) is not None:
            yield now, (user, dialogue.compaction(stretch), self._crowd.memory_output)
        if has_cut and self._prewarm:
            yield now, (user, dialogue.warming(), 1)

    def _background(self, user: object, prompt: Prompt, output: int, now: float) -> Request:
        assert isinstance(user, _User)
        return Request(
            prompt=prompt,
            output_tokens=output,
            key=user.dialogue.id,
            conversation=user.dialogue.id,
            kind="background",
            is_measured=now >= self._crowd.measured_from,
            source=user,
        )

    def _first(self, number: int) -> Arrival:
        crowd = self._crowd
        dice = random.Random(self._seed * 1_000_003 + number)
        user = _User(number, dice)
        self._begin_dialogue(
            user, self._history(dice, dice.randrange(crowd.dialogue_turns) * (not crowd.is_new))
        )
        user.left = self._session(dice)
        if crowd.begins_within:
            return dice.random() * crowd.begins_within, user
        if dice.random() < crowd.active_share():
            return dice.random() * seconds(dice, crowd.gap_median, crowd.gap_sigma), user
        return dice.random() * seconds(dice, crowd.away_median, crowd.away_sigma), user

    def _pause(self, user: _User, now: float) -> float | None:
        """Until the user's next message; None if there is none."""
        crowd, dice = self._crowd, user.dice
        user.left -= 1
        if user.dialogue.turn_count >= crowd.dialogue_turns:
            self._begin_dialogue(user, [])
        if crowd.returns_at and not user.has_returned:
            user.has_returned = True
            return crowd.returns_at - now + dice.random() * crowd.returns_within
        if user.left > 0:
            return seconds(dice, crowd.gap_median, crowd.gap_sigma)
        user.sessions += 1
        if user.sessions == crowd.sessions:
            return None
        user.left = self._session(dice)
        return seconds(dice, crowd.away_median, crowd.away_sigma)

    def _begin_dialogue(self, user: _User, said: list[int]) -> None:
        persona = user.dice.choices(range(self._crowd.personas), cum_weights=self._popular)[0]
        number = user.number + user.begun * self._crowd.users
        user.dialogue = Dialogue(number, persona, self._layout, said=said)
        user.begun += 1

    def _history(self, dice: random.Random, turns: int) -> list[int]:
        crowd = self._crowd
        return [
            length(dice, crowd.user_median, crowd.user_sigma)
            + length(dice, crowd.answer_median, crowd.answer_sigma)
            for _ in range(turns)
        ]

    def _session(self, dice: random.Random) -> int:
        drawn = dice.lognormvariate(log(self._crowd.session_median), self._crowd.session_sigma)
        return max(1, min(self._crowd.dialogue_turns, round(drawn)))
