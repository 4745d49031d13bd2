"""Recall: whether facts come back, what small talk brings up, and what a search costs.

Prints six tables. The first two are about recall by meaning: facts asked for in the words they were told in,
and in other words; `--node URL --model NAME` takes the vectors of a real model, without it they are those of
the stub, whose table of synonyms was made for these questions: the most that a model could do. The second
times its searches. The next two ask 200 questions per seed (see `gateway.advise.needles.generator`) about
facts that were said 5 to 500 turns ago: the share whose fact is in the prompt, by the last 40 turns alone, by
the stepped window alone, by window and summary (an ideal one and one of the newest lines, both within the
summary's budget: see `bench.needles.summary`), and by window and recall. In the former there are some ten
facts in a dialogue, in the latter one turn in ten says one. The fifth one says things that ask nothing, in
dialogues made of other templates than they are. The sixth one times searches in large archives; their few
templates make words more frequent, and so postings longer, than real dialogues have them. Run it as
`python -m bench.recall`; a minute on one core.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import httpx
import msgspec
from msgspec.structs import replace

from bench.needles.trial import Embed, Outcome, outcomes
from bench.stub_node import embeddings
from gateway.advise.needles.generator import (
    DISTANCES,
    LANGUAGES,
    Exchange,
    Templates,
    filled,
    small_talk,
    templates,
    turns,
)
from history.compaction import CompactionRule
from history.conversation import Turn
from history.meaning import read_embeddings, record_of
from history.passage import Passage, remembered, tokens_of
from history.recall import RecallRule, sentences
from history.recall_index import RecallIndex
from history.tail import Tail, tail_text
from history.vector_index import VectorIndex
from history.window import WindowRule

RULE, WINDOW, COMPACTION = RecallRule(), WindowRule(), CompactionRule()
DENSE = 10
"""One turn in so many says a fact, in the second table."""
SIZES = (200, 1_000, 10_000)
HELD_OUT = 10
"""Templates of small talk that the archive is made without."""
LONG_SENTENCES = 12
STUB_DIMENSIONS = 512
BATCH = 64


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


def print_paraphrases(seeds: int, embed: Embed, source: str, rule: RecallRule) -> None:
    """The share of archived facts that come back, by words and by words and meaning."""
    print(f"\narchived facts recalled, by words alone and by words and meaning (vectors: {source})\n")
    print("  asked                    turns with facts   cases      by words   words + meaning   tail tokens")
    print(" " * 53 + "en   zh" + " " * 11 + "en   zh" + " " * 9 + "mean")
    for paraphrased in (False, True):
        for every in (0, DENSE):
            rows = [
                [
                    one
                    for seed in range(seeds)
                    for one in outcomes(
                        seed, rule=rule, window=WINDOW, fact_every=every, paraphrased=paraphrased, embed=by
                    )
                    if not one.in_window
                ]
                for by in (None, embed)
            ]
            cells = [
                share([one.recalled for one in row if one.case.language == language])
                for row in rows
                for language in LANGUAGES
            ]
            tokens = statistics.mean(one.tail_tokens for one in rows[1])
            print(
                f"  {'in other words' if paraphrased else 'in the same words':<24}"
                f"{f'one in {every}' if every else 'ten in all':>17}{len(rows[0]):>8}"
                f"{cells[0]:>7}{cells[1]:>5}{cells[2]:>13}{cells[3]:>5}{tokens:>13.0f}"
            )


def print_meaning_costs(searches: int) -> None:
    """The time of a warm search by meaning, beside what it takes to get the question's vector."""
    print("\na warm search by meaning: quantising, comparing with every turn, selection\n")
    print("  turns  dimensions  index kB    p50 ms  p99 ms  max ms    p50 CPU  p99 CPU")
    for size in SIZES:
        for dimensions in (384, 1024):
            dice = random.Random(size)
            index = VectorIndex()
            for _ in range(size):
                index.saw(b"")
            stamped = record_of(Turn(messages=(), digests=b""), [1.0])[:-1]
            index.take(0, [stamped + dice.randbytes(dimensions) for _ in range(size)])
            asked = [[dice.gauss(0, 1) for _ in range(dimensions)] for _ in range(searches)]
            wall = searched(index, asked, size, time.perf_counter)
            cpu = searched(index, asked, size, time.thread_time)
            print(
                f"{size:>7}{dimensions:>12}{index.size // 1000:>10}"
                f"{wall[len(wall) // 2]:>10.2f}{wall[len(wall) * 99 // 100]:>8.2f}{wall[-1]:>8.2f}"
                f"{cpu[len(cpu) // 2]:>11.2f}{cpu[len(cpu) * 99 // 100]:>9.2f}"
            )


def searched(
    index: VectorIndex, asked: Sequence[list[float]], cut: int, clock: Callable[[], float]
) -> list[float]:
    """Milliseconds of every search by meaning, sorted."""
    taken = []
    for vector in asked:
        before = clock()
        index.search(vector, cut=cut, stands_out=RULE.meaning.stands_out)
        taken.append((clock() - before) * 1e3)
    return sorted(taken)


def stub_vectors(texts: Sequence[str]) -> list[list[float]]:
    """What the stub node answers: words of one meaning are one word."""
    return [stub_vector(text) for text in texts]


@lru_cache(maxsize=200_000)
def stub_vector(text: str) -> list[float]:
    """Of one text."""
    return embeddings.embed(text, size=STUB_DIMENSIONS)


def node_vectors(url: str, model: str) -> Embed:
    """What a node answers for a model, each text asked for once."""
    known: dict[str, list[float]] = {}

    def embed(texts: Sequence[str]) -> list[list[float]]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for first in range(0, len(new), BATCH):
            batch = new[first : first + BATCH]
            body = {"model": model, "input": batch, "encoding_format": "float"}
            answer = httpx.post(f"{url.rstrip('/')}/v1/embeddings", json=body, timeout=600)
            answer.raise_for_status()
            known.update(zip(batch, read_embeddings(answer.content, len(batch)), strict=True))
        return [known[text] for text in texts]

    return embed


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
    """All six tables."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=3, help="200 needle cases each")
    arguments.add_argument("--searches", type=int, default=1_000, help="per archive")
    arguments.add_argument("--node", help="URL of a node that serves /v1/embeddings, in place of the stub's")
    arguments.add_argument("--model", default="", help="the model's name there")
    arguments.add_argument("--stands-out", type=float, default=RULE.meaning.stands_out)
    arguments.add_argument("--only-meaning", action="store_true", help="the tables of recall by meaning only")
    given = arguments.parse_args()
    rule = replace(RULE, meaning=replace(RULE.meaning, stands_out=given.stands_out))
    embed = node_vectors(given.node, given.model) if given.node else stub_vectors
    print_paraphrases(given.seeds, embed, given.model or "the stub's, with a table of synonyms", rule)
    print_meaning_costs(given.searches)
    if given.only_meaning:
        return
    print_needles(given.seeds, fact_every=0)
    print_needles(given.seeds, fact_every=DENSE)
    print_small_talk()
    print_costs(given.searches)


if __name__ == "__main__":
    main()
