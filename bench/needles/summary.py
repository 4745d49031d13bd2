"""What a summary alone would still know: a model of the best that its budget allows, since no model is here.

A summary is given `CompactionRule.max_tokens` tokens (of four bytes) and, in its list, `max_facts` facts of
at most 200 characters. Two note-takers, both without a mistake, both over all turns before the cut:

- `ideal` recognises what is a fact: the lines that were planted, those near the asked one included. Every
  line of it goes into the list word for word, nothing is spent on anything else, and only what no longer fits
  is dropped, the oldest first, as the product drops facts. No real summary does better within the budget,
  but one that knows what will be asked.
- `newest` cannot tell a fact from small talk and keeps what the user said last, word for word, until the
  budget is full; the number of lines is not limited.

A model that writes prose lies somewhere between: it leaves small talk out, and blurs names and numbers.
"""

from collections.abc import Iterable

from gateway.advise.needles.generator import Case
from history.compaction import CompactionRule
from history.memory import MAX_FACT_CHARS
from history.passage import tokens_of


def ideal(case: Case, cut: int, rule: CompactionRule) -> bool:
    """Whether the answer is in the list of an ideal note-taker."""
    facts = [at for at in case.facts if at < cut]
    return _kept(case, facts[max(0, len(facts) - rule.max_facts) :], rule)


def newest(case: Case, cut: int, rule: CompactionRule) -> bool:
    """Whether it is among the user's last lines before the cut that fit."""
    return _kept(case, range(cut), rule)


def _kept(case: Case, positions: Iterable[int], rule: CompactionRule) -> bool:
    """Whether the fact is in the list of these turns' lines, once the oldest that do not fit are gone."""
    left = rule.max_tokens
    for at in sorted(positions, reverse=True):
        line = case.said[at].user[:MAX_FACT_CHARS]
        left -= tokens_of(f"- {line}\n")
        if left < 0:
            return False
        if at == case.planted:
            return case.answer in line
    return False
