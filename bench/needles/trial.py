"""One needle case after another: whether the window, a summary or recall brings the fact into the prompt."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from bench.needles import summary
from gateway.advise.needles.generator import Case, cases, turns
from history.compaction import CompactionRule
from history.conversation import Turn
from history.meaning import MeaningRule, embedded_text, record_of
from history.passage import Passage, remembered, tokens_of
from history.recall import RecallRule, sentences
from history.recall_index import RecallIndex
from history.tail import Tail, tail_text
from history.vector_index import VectorIndex
from history.window import WindowRule, stateless_cut

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""What makes vectors of texts."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a case."""

    case: Case
    in_window: bool
    recalled: bool
    """The fact's turn was recalled, and the tail has the answer."""
    tail_tokens: int
    summarised: bool
    """An ideal summary of what left the window has it; see `summary`."""
    in_newest_lines: bool
    """So has one that keeps the newest lines."""

    @property
    def shown(self) -> bool:
        """Whether the prompt has the fact."""
        return self.in_window or self.recalled


def outcomes(  # noqa: PLR0913 - what is asked, and every way of answering it
    seed: int,
    *,
    rule: RecallRule,
    window: WindowRule,
    compaction: CompactionRule | None = None,
    fact_every: int = 0,
    paraphrased: bool = False,
    embed: Embed | None = None,
) -> Iterator[Outcome]:
    """Every case of a seed, answered with the window, the recall and the summary of these rules.

    `embed`: recall is by meaning, too. `paraphrased`: asked in other words than the fact was told in.
    """
    budget = compaction or CompactionRule()
    for case in cases(seed, fact_every=fact_every, paraphrased=paraphrased):
        cut = stateless_cut(len(case.said), window)
        passages = recalled(case, cut, rule, embed)
        tail = Tail(recalled=passages)
        text = tail_text(tail, user_text=case.question, max_recalled_tokens=rule.max_tokens)
        yield Outcome(
            case=case,
            in_window=case.planted >= cut,
            recalled=any(one.position == case.planted for one in passages) and case.answer in text,
            tail_tokens=tokens_of(text),
            summarised=summary.ideal(case, cut, budget),
            in_newest_lines=summary.newest(case, cut, budget),
        )


def recalled(case: Case, cut: int, rule: RecallRule, embed: Embed | None = None) -> tuple[Passage, ...]:
    """What fresh indexes of the turns before the cut give for the question."""
    said = turns(case.said)[:cut]
    archived = [remembered(at, turn, max_chars=rule.max_chars) for at, turn in enumerate(said)]
    index = RecallIndex()
    index.add(archived, max_turns=rule.max_turns)
    asked = sentences(case.question)
    near = nearest(said, case.question, rule.meaning, embed) if embed and said else ()
    found = index.search(asked, rule, cut=cut, near=near)
    index.close()
    return found


def nearest(said: Sequence[Turn], question: str, rule: MeaningRule, embed: Embed) -> list[int]:
    """The turns that are near to the question by their meaning."""
    made = VectorIndex()
    vectors = embed([embedded_text(turn, rule) or "-" for turn in said])
    for turn in said:
        made.saw(turn.digests)
    made.take(0, [record_of(turn, vector) for turn, vector in zip(said, vectors, strict=True)])
    asked = " ".join(one.text.strip() for one in sentences(question) if one.asks)
    if not asked:
        return []
    vector = list(embed([rule.query_prefix + asked])[0])
    return made.search(vector, cut=len(said), stands_out=rule.stands_out)
