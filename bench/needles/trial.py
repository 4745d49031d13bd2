"""One needle case after another: whether the window, a summary or recall brings the fact into the prompt."""

from collections.abc import Iterator

import msgspec

from bench.needles import summary
from bench.needles.generator import Case, cases, turns
from history.compaction import CompactionRule
from history.passage import Passage, remembered, tokens_of
from history.recall import RecallRule, sentences
from history.recall_index import RecallIndex
from history.tail import Tail, tail_text
from history.window import WindowRule, stateless_cut


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


def outcomes(
    seed: int,
    *,
    rule: RecallRule,
    window: WindowRule,
    compaction: CompactionRule | None = None,
    fact_every: int = 0,
) -> Iterator[Outcome]:
    """Every case of a seed, answered with the window, the recall and the summary of these rules."""
    budget = compaction or CompactionRule()
    for case in cases(seed, fact_every=fact_every):
        cut = stateless_cut(len(case.said), window)
        passages = recalled(case, cut, rule)
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


def recalled(case: Case, cut: int, rule: RecallRule) -> tuple[Passage, ...]:
    """What a fresh index of the turns before the cut gives for the question."""
    archived = [
        remembered(at, turn, max_chars=rule.max_chars) for at, turn in enumerate(turns(case.said)[:cut])
    ]
    index = RecallIndex()
    index.add(archived, max_turns=rule.max_turns)
    found = index.search(sentences(case.question), rule, cut=cut)
    index.close()
    return found
