"""Every dialogue of a source becomes a sketch, once; some get needles while their words are at hand."""

import asyncio
from collections.abc import Iterator

import xxhash

from gateway.advise.needles.probe import Needle, planted
from gateway.advise.question import Question
from gateway.advise.source import Heard, Source
from gateway.advise.state import State
from gateway.advise.watcher import Watcher
from gateway.errors import BadOption

_PROBED_DIALOGUES = 12
_LEAST_PROBED_TURNS = 21


async def listen(source: Source, state: State, question: Question, watcher: Watcher) -> bool:
    """Listen to what is not known yet, up to the limit; whether that was all of it.

    Raises `BadOption` where already the first dialogue is over the limit.
    """
    if state.is_heard:
        return True
    turns = sum(sketch.turn_count for sketch in state.sketches)
    watcher.begins(f"reading {source.name}", source.total)
    async for heard in source.heard(frozenset(state.places)):
        state.wrong = max(state.wrong, heard.wrong)
        turns += heard.sketch.turn_count
        if turns > question.limit:
            if not state.sketches:
                raise BadOption(f"the first dialogue alone has {turns} turns, more than --limit")
            return False
        needles = list(_needles(heard, state, question))
        state.heard(heard.sketch, heard.place, heard.talk.measured if heard.talk else 0, needles)
        watcher.reached(heard.progress, f"{len(state.sketches)} dialogues, {turns} turns")
        await asyncio.sleep(0)  # so that Ctrl-C is heard
    state.all_heard()
    return True


def _needles(heard: Heard, state: State, question: Question) -> Iterator[Needle]:
    """Needles in the first dialogues that are long enough."""
    if heard.talk is None or len(heard.talk.turns) < _LEAST_PROBED_TURNS:
        return
    if state.probed < _PROBED_DIALOGUES:
        same = xxhash.xxh3_64_hexdigest(heard.sketch.asked_row + heard.sketch.answered_row)
        seed = f"{question.seed}/{same}"  # of the dialogue itself, wherever it was read
        yield from planted(heard.talk.turns, question.recall, question.window, seed=seed)
