"""Recall: whether facts come back, what small talk brings up, and what a search costs.

Prints four tables. The first two ask 200 questions per seed (see `bench.needles.generator`) about facts that
were said 5 to 500 turns ago: the share whose fact is in the prompt, by the last 40 turns alone, by the
stepped window alone, by window and summary (an ideal one and one of the newest lines, both within the
summary's budget: see `bench.needles.summary`), and by window and recall. In the first there are some ten
facts in a dialogue, in the second one turn in ten says one. The third one says things that ask nothing, in
dialogues made of other templates than they are. The fourth one times searches in large archives; their few
templates make words more frequent, and so postings longer, than real dialogues have them. Run it as
`python -m bench.recall`; a minute on one core.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence

import msgspec

from bench.needles.generator import (
    DISTANCES,
    LANGUAGES,
    Exchange,
    Templates,
    filled,
    small_talk,
    templates,
    turns,
)
from bench.needles.trial import Outcome, outcomes
from history.compaction import CompactionRule
from history.passage import Passage, remembered, tokens_of
from history.recall import RecallRule, sentences
from history.recall_index import RecallIndex
from history.tail import Tail, tail_text
from history.window import WindowRule

RULE, WINDOW, COMPACTION = RecallRule(), WindowRule(), CompactionRule()
DENSE = 10
"""One turn in so many says a fact, in the second table."""
SIZES = (200, 1_000, 10_000)
HELD_OUT = 10
"""Templates of small talk that the archive is made without."""
LONG_SENTENCES = 12


def print_needles(seeds: int, *, fact_every: int) -> None:
    """The share of facts in the prompt, by distance and language."""
    found = [
        one
        for seed in range(seeds)
        for one in outcomes(seed, rule=RULE, window=WINDOW, compaction=COMPACTION, fact_every=fact_every)
    ]
    print(
        f"facts in the prompt, {len(found)} questions, "
        f"{f'one turn in {fact_every} says a fact' if fact_every else 'some ten facts in a dialogue'}; "
        f"at most {RULE.max_tokens} tokens of tail, {COMPACTION.max_tokens} of summary\n"
    )
    heads = ("last 40", "window", "summary:", "summary:", "recall", "recall")
    print(" " * 17 + "".join(f"{head:>12}" for head in heads))
    print("  distance  cases" + " " * 29 + "ideal" + " " * 6 + "newest" + " " * 13 + "archived   tail tokens")
    print(" " * 17 + "     en   zh" * 6 + "          mean")
    for distance in (*DISTANCES, 0):
        print_row(distance, [one for one in found if distance in (0, one.case.distance)])
    print()


def print_row(distance: int, found: Sequence[Outcome]) -> None:
    """One distance; 0 stands for all."""
    left = [one for one in found if not one.in_window]
    columns = (
        [(one.case.language, one.case.distance <= WINDOW.max_turns) for one in found],
        [(one.case.language, one.in_window) for one in found],
        [(one.case.language, one.in_window or one.summarised) for one in found],
        [(one.case.language, one.in_window or one.in_newest_lines) for one in found],
        [(one.case.language, one.shown) for one in found],
        [(one.case.language, one.recalled) for one in left],
    )
    cells = "".join(
        f"{share([hit for language, hit in column if language == each]):>{width}}"
        for column in columns
        for each, width in zip(LANGUAGES, (7, 5), strict=True)
    )
    tokens = [one.tail_tokens for one in left if one.tail_tokens]
    mean = f"{statistics.mean(tokens):.0f}" if tokens else "-"
    print(f"  {distance or 'all':>8}{len(found):>7}{cells}{mean:>14}")


def share(found: Sequence[bool]) -> str:
    """A percentage, or a dash where there is nothing."""
    return f"{100 * sum(found) / len(found):.0f}" if found else "-"


def print_small_talk() -> None:
    """How often messages that ask nothing bring something up, and how much."""
    print("\nsmall talk that recalls something (said in templates that the archive does not have)\n")
    print("  language  turns  messages  share %  mean tokens of those")
    for language in LANGUAGES:
        told = templates(language)
        for size in SIZES[:2]:
            dice = random.Random(size)
            index = indexed(archive(told, size, dice, talk=told.talk[HELD_OUT:]))
            said = [filled(user, told, dice) for user, *_ in told.talk[:HELD_OUT] for _ in range(10)]
            tails = [tail(index, text, size) for text in said]
            came = [tokens_of(one) for one in tails if one]
            mean = statistics.mean(came) if came else 0
            came_up = share([bool(one) for one in tails])
            print(f"  {language:>8}{size:>7}{len(said):>10}{came_up:>9}{mean:>12.0f}")


def print_costs(searches: int) -> None:
    """Bytes, build time and the time of a warm search with everything that belongs to it."""
    print("\na warm search: words, index, threshold, selection, rendering\n")
    print("  language  turns  text kB  index kB  build s CPU    p50 ms  p99 ms  max ms    p50 CPU  p99 CPU")
    for language in LANGUAGES:
        told = templates(language)
        for size in SIZES:
            dice = random.Random(size)
            passages = archive(told, size, dice, talk=told.talk)
            before = time.process_time()
            index = indexed(passages)
            built = time.process_time() - before
            said = messages(told, dice, searches)
            wall = timed(index, said, size, time.perf_counter)
            cpu = timed(index, said, size, time.thread_time)
            text = sum(len(one.text().encode()) for one in passages) // 1000
            print(
                f"  {language:>8}{size:>7}{text:>9}{index.size // 1000:>10}{built:>13.2f}"
                f"{wall[len(wall) // 2]:>10.2f}{wall[len(wall) * 99 // 100]:>8.2f}{wall[-1]:>8.2f}"
                f"{cpu[len(cpu) // 2]:>11.2f}{cpu[len(cpu) * 99 // 100]:>9.2f}"
            )
            index.close()


def archive(
    told: Templates, size: int, dice: random.Random, *, talk: tuple[tuple[str, str, str], ...]
) -> list[Passage]:
    """A long dialogue: small talk, and every tenth turn a fact or something near one."""
    chatting = msgspec.structs.replace(told, talk=talk)
    said: list[Exchange] = []
    for at in range(size):
        one = small_talk(chatting, dice)
        if at % 10 == 0:
            kind = dice.choice(told.kinds)
            one = Exchange(filled(dice.choice(kind.fact + kind.near), told, dice), one.reply)
        said.append(one)
    return [remembered(at, turn, max_chars=RULE.max_chars) for at, turn in enumerate(turns(said))]


def messages(told: Templates, dice: random.Random, count: int) -> list[str]:
    """Half questions, four tenths small talk, one tenth long."""
    asks = [filled(dice.choice(dice.choice(told.kinds).ask), told, dice) for _ in range(count // 2)]
    talk = [small_talk(told, dice).user for _ in range(count * 4 // 10)]
    long = [" ".join(small_talk(told, dice).user for _ in range(LONG_SENTENCES)) for _ in range(count // 10)]
    mixed = [*asks, *talk, *long]
    dice.shuffle(mixed)
    return mixed


def indexed(passages: Sequence[Passage]) -> RecallIndex:
    """An index of a whole archive."""
    index = RecallIndex()
    index.add(passages, max_turns=RULE.max_turns)
    return index


def tail(index: RecallIndex, text: str, cut: int) -> str:
    """What a message would get."""
    found = index.search(sentences(text), RULE, cut=cut)
    return tail_text(Tail(recalled=found), user_text=text, max_recalled_tokens=RULE.max_tokens)


def timed(index: RecallIndex, said: Sequence[str], cut: int, clock: Callable[[], float]) -> list[float]:
    """Milliseconds of every search, sorted."""
    taken = []
    for text in said:
        before = clock()
        tail(index, text, cut)
        taken.append((clock() - before) * 1e3)
    return sorted(taken)


def main() -> None:
    """All four tables."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=3, help="200 needle cases each")
    arguments.add_argument("--searches", type=int, default=1_000, help="per archive")
    given = arguments.parse_args()
    print_needles(given.seeds, fact_every=0)
    print_needles(given.seeds, fact_every=DENSE)
    print_small_talk()
    print_costs(given.searches)


if __name__ == "__main__":
    main()
