"""The likelihood of held-out replies behind windows of different length: chosen, scored, and kept."""

from collections.abc import Sequence

from gateway.advise.asking import NodeAsked
from gateway.advise.likelihood_probe import WINDOWS, Held, LikelihoodProbe, held_out
from gateway.advise.question import Question
from gateway.advise.source import Source
from gateway.advise.state import State
from gateway.advise.watcher import Watcher
from gateway.errors import BadOption
from history.likelihood import Curve, curves

_PER_DIALOGUE = 3


async def quality(
    node: NodeAsked, source: Source, state: State, question: Question, watcher: Watcher
) -> list[Curve]:
    """The curves, of all replies first. Raises `BadOption` where there are too few dialogues for one."""
    probe = LikelihoodProbe(node)
    held = await _chosen(source, question, watcher)
    known = {(one.dialogue, one.turn) for one in state.scored(node.model)}
    left = [one for one in held if (one.dialogue, one.turn) not in known]
    watcher.begins(f"scoring replies on {node.url}", len(held))
    watcher.reached(len(held) - len(left))
    done = len(held) - len(left)
    async for one in probe.scores(left, WINDOWS):
        state.has_scored(node.model, one)
        done += 1
        watcher.reached(done, f"{one.tokens} tokens")
    wanted = {(one.dialogue, one.turn) for one in held}
    scored = [one for one in state.scored(node.model) if (one.dialogue, one.turn) in wanted]
    found = curves(scored, tolerance=question.assumed.tolerance, seed=question.seed)
    if not found:
        dialogues = len({one.dialogue for one in scored})
        raise BadOption(
            f"--quality: {len(scored)} replies of {dialogues} dialogues are too few; at least four dialogues "
            "of five turns are needed"
        )
    return found


async def _chosen(source: Source, question: Question, watcher: Watcher) -> Sequence[Held]:
    """Replies of the first dialogues that are long enough."""
    found: list[Held] = []
    watcher.begins("choosing replies to hold out", question.assumed.quality_replies)
    async for heard in source.heard(frozenset()):
        if heard.talk is not None:
            name = f"{heard.place:x}"
            found += held_out(heard.talk, name, per_dialogue=_PER_DIALOGUE, most_turns=max(WINDOWS))
            watcher.reached(min(len(found), question.assumed.quality_replies))
        if len(found) >= question.assumed.quality_replies:
            break
    return found[: question.assumed.quality_replies]
