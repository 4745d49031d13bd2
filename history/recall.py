"""Which archived turns a new message refers to: what is asked, what a match is worth, what is enough. Pure.

The message is taken apart into sentences, so that a question behind a long story counts by itself. A word t
that df of N archived turns have weighs

    idf(t) = ln(1 + (N - df + 1/2) / (df + 1/2))    as in BM25 (Robertson and Zaragoza 2009, Lucene's form)

and half of that where it is a single character of a script without spaces. For a sentence s and a turn d

    evidence(s, d) = sum of idf over the words that both have; a character in a pair that both have is no more
    coverage(s, d) = evidence(s, d) / sum of idf over all words of s, those that nobody ever said included
    rarity(s, d)   = evidence(s, d) / idf of a word that one turn has

Under independence a turn has all words of a set by chance with probability exp(-evidence), nearly, so turns
with rarity x are expected N^(1-x) times: the same threshold means the same at 50 turns and at 10,000, which
a raw BM25 score does not. A turn *clears* if its coverage and its rarity do. Who asks something refers to
something: a sentence that asks needs less rarity than one that tells, or small talk would recall small talk.

Turns that clear are ranked by BM25 with k1 = 1.2 and each word counted once (turns are short, and saying a
word twice makes no fact of it), together with those that are near by meaning (`meaning`), then quoted within
the token budget, best first, in the order they were said.
"""

import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence

import msgspec

from history.meaning import MeaningRule, fused
from history.passage import Passage, excerpt
from history.tail import HEADER_TOKENS, passage_tokens
from history.words import is_unspaced, words

MAX_TERMS = 32
"""Terms that are searched for: of more, those that the fewest turns have."""
_MAX_WORDS = 64
_MAX_SENTENCES = 8
_MAX_POSTINGS = 1_500
"""Turns that all terms together may have: what bounds the time of a search, whatever the archive's size."""
_MAX_MATCHES = 32
_LEAST_TOKENS = 32
"""Less than this says nothing."""
_HEADING_TOKENS = 12
"""The date and the names around what a passage says."""
_MAX_SHARE = 0.1
_ALWAYS_TURNS = 5
_K1, _B = 1.2, 0.3
_CHARACTER_WEIGHT = 0.5

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；…])|\n+")
# A question mark, a question word where questions begin, a call to remember. "I don't know why" asks nothing.
_BEGINS_TO_ASK = re.compile(
    r"\W*(?:\w+\W+)?(?:what|when|where|who|whom|whose|which|why|how)\b", re.IGNORECASE
)
_CALLS_TO_MIND = re.compile(r"\b(?:remember|recall|remind|forgot|forget|tell(?! you\b))\b", re.IGNORECASE)
_ASKS_UNSPACED = re.compile(
    r"[？؟]|记得|記得|来着|來著|忘了|说说|說說|讲讲|講講|聊聊"
    r"|^(?!.*不知道).*(?:什么|什麼|哪|谁|誰|几|幾|多少|怎么|怎麼|吗|嗎)"
)


class RecallRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When archived turns come back into the prompt, and how much of them."""

    enabled: bool = True
    max_tokens: int = 512
    """For everything that is recalled for one message, headings included."""
    max_telling_tokens: int = 128
    """The same where the message asks nothing, so that what it happens to touch costs little."""
    max_passage_tokens: int = 96
    """For one turn; of a longer one the part around the words that were asked for."""
    coverage: float = 0.15
    asking: float = 0.5
    """The least rarity for a sentence that asks. 1: by chance one turn of the whole archive has it."""
    telling: float = 1.2
    """The same for a sentence that tells."""
    within: float = 0.4
    """Turns whose score is below this share of the best one's stay out."""
    max_chars: int = 4_000
    """How much of one turn can be found and quoted."""
    max_turns: int = 20_000
    """How many of a conversation's archived turns can be found; the oldest go first."""
    meaning: MeaningRule = MeaningRule()

    def __post_init__(self) -> None:
        bounds = {
            "max_tokens": self.max_tokens,
            "max_telling_tokens": self.max_telling_tokens,
            "max_passage_tokens": self.max_passage_tokens,
            "max_chars": self.max_chars,
            "max_turns": self.max_turns,
        }
        if wrong := [name for name, value in bounds.items() if value < 1]:
            raise ValueError(
                f"{', '.join(wrong)} must be at least 1; to switch recall off, set enabled: false"
            )


class Sentence(msgspec.Struct, frozen=True):
    """A sentence of the message, and its words, each once."""

    words: tuple[str, ...]
    text: str

    @property
    def asks(self) -> bool:
        """Whether it asks something."""
        return bool(
            "?" in self.text
            or _BEGINS_TO_ASK.match(self.text)
            or _CALLS_TO_MIND.search(self.text)
            or (not self.text.isascii() and _ASKS_UNSPACED.search(self.text))
        )


class Term(msgspec.Struct, frozen=True):
    """A word of the message as the index has it."""

    word: str
    stem: str
    turns: int
    """How many archived turns have it."""


class Corpus(msgspec.Struct, frozen=True):
    """What the weights depend on: how many turns can be found, and how many words they have together."""

    turns: int
    words: int


class Weighed(msgspec.Struct, frozen=True):
    """A sentence with the weights of its words that are searched for, by stem."""

    weights: Mapping[str, float]
    total: float
    """Their sum, with the words that nobody ever said."""
    asks: bool


class Wanted(msgspec.Struct, frozen=True):
    """What a message makes us look for."""

    stems: tuple[str, ...]
    sentences: tuple[Weighed, ...]
    corpus: Corpus


class Match(msgspec.Struct, frozen=True):
    """A turn that clears the thresholds."""

    position: int
    evidence: float
    stems: tuple[str, ...]
    asked: bool = True
    """A sentence that asks refers to it."""


class Found(msgspec.Struct, frozen=True):
    """What the index keeps of a turn that matches."""

    passage: Passage
    words: int


def sentences(text: str) -> tuple[Sentence, ...]:
    """What a message asks and tells, without its function words; empty for a greeting or a nod.

    Bounded: of many sentences the first two and the last, of many words those of the last sentences.
    """
    parts = [part for part in _SENTENCE_END.split(text[:2_000] + text[2_000:][-2_000:]) if part.strip()]
    if len(parts) > _MAX_SENTENCES:
        parts = parts[:2] + parts[2 - _MAX_SENTENCES :]
    found: list[Sentence] = []
    left = _MAX_WORDS
    for part in reversed(parts):
        said = tuple(dict.fromkeys(words(part)))[:left]
        left -= len(said)
        if said:
            found.append(Sentence(said, part))
    return tuple(reversed(found))


def wanted(asked: Sequence[Sentence], terms: Sequence[Term], corpus: Corpus) -> Wanted:
    """What to search for, and what finding it is worth. `terms` are all words of the sentences."""
    common = max(_ALWAYS_TURNS, _MAX_SHARE * corpus.turns)
    known = [term for term in terms if 0 < term.turns <= common]
    if not known:
        return Wanted(stems=(), sentences=(), corpus=corpus)
    asks = [one.asks for one in asked]
    searched = _searched(
        known, {word for one, does in zip(asked, asks, strict=True) if does for word in one.words}
    )
    of_word = {term.word: term for term in terms}
    return Wanted(
        stems=tuple(sorted(term.stem for term in searched)),
        sentences=tuple(
            _weighed(one, of_word, searched, corpus, asks=does) for one, does in zip(asked, asks, strict=True)
        ),
        corpus=corpus,
    )


def cleared(sought: Wanted, postings: Mapping[int, Sequence[str]], rule: RecallRule) -> tuple[Match, ...]:
    """The turns that the message refers to, the strongest first; ties go to the newer one.

    `postings` tell for each turn which of the stems it has.
    """
    # Most turns that match have one and the same word: what a set of words is worth is found out once.
    worth: dict[tuple[str, ...], tuple[float, bool]] = {}
    matches = []
    for position, stems in postings.items():
        key = tuple(stems)
        if key not in worth:
            worth[key] = _worth(sought, key, rule)
        evidence, asked = worth[key]
        if evidence:
            matches.append(Match(position, evidence, key, asked))
    matches.sort(key=lambda match: (-match.evidence, -match.position))
    return tuple(matches[:_MAX_MATCHES])


def fitted(
    matches: Sequence[Match],
    found: Mapping[int, Found],
    sought: Wanted,
    rule: RecallRule,
    *,
    cut: int,
    near: Sequence[int] = (),
) -> tuple[Passage, ...]:
    """The passages that fit the budget, best first, in the order they were said; nothing from the cut on.

    `near` are those that are near by their meaning, the nearest first; both rankings count.
    """
    by_words = _ranked(matches, found, sought, rule)
    stems = {match.position: match.stems for match in by_words}
    kept: list[Passage] = []
    asked = bool(near) or any(match.asked for match in by_words)
    left = (rule.max_tokens if asked else min(rule.max_tokens, rule.max_telling_tokens)) - HEADER_TOKENS
    for position in fused([match.position for match in by_words], near):
        if left < _LEAST_TOKENS:
            break
        passage = found[position].passage
        if not passage.lines or position >= cut:
            continue
        most = min(rule.max_passage_tokens, left - _HEADING_TOKENS)
        part = excerpt(passage, stems.get(position, ()), max_tokens=most)
        size = passage_tokens(part)
        if size <= left:
            kept.append(part)
            left -= size
    return tuple(sorted(kept, key=lambda one: one.position))


def _ranked(
    matches: Sequence[Match], found: Mapping[int, Found], sought: Wanted, rule: RecallRule
) -> list[Match]:
    """The matches by their score, without those far below the best."""
    mean = max(1.0, sought.corpus.words / max(1, sought.corpus.turns))
    scored = sorted(
        (
            (_score(match, found[match.position].words / mean), match)
            for match in matches
            if match.position in found
        ),
        key=lambda one: (-one[0], -one[1].position),
    )
    return [match for score, match in scored if score >= scored[0][0] * rule.within]


def idf(turns: int, total: int) -> float:
    """What it says of a turn that it has a word which `turns` of `total` have."""
    return math.log1p((total - turns + 0.5) / (turns + 0.5))


def _searched(known: Sequence[Term], first: Container[str]) -> tuple[Term, ...]:
    """Of the words that are known and not in everybody's mouth those that are asked for, then the rarest."""
    known = sorted(known, key=lambda term: (term.word not in first, term.turns, term.stem))
    kept: dict[str, Term] = {}
    postings = 0
    for term in known:
        if (
            len(kept) < MAX_TERMS
            and term.stem not in kept
            and (postings + term.turns <= _MAX_POSTINGS or not kept)
        ):
            kept[term.stem] = term
            postings += term.turns
    return tuple(kept.values())


def _weighed(
    sentence: Sentence, of_word: Mapping[str, Term], searched: Sequence[Term], corpus: Corpus, *, asks: bool
) -> Weighed:
    stems = {term.stem for term in searched}
    weights: dict[str, float] = {}
    unknown = 0.0
    for word in sentence.words:
        term = of_word.get(word)
        if term is not None and term.stem in stems:
            weights[term.stem] = _weight(term, corpus)
        elif (term is None or not term.turns) and not is_unspaced(word):
            # An unknown pair of characters may be the end of one word and the beginning of the next.
            unknown += idf(0, corpus.turns)
    return Weighed(weights=weights, total=_sum(weights, weights) + unknown, asks=asks)


def _weight(term: Term, corpus: Corpus) -> float:
    return (_CHARACTER_WEIGHT if _is_character(term.stem) else 1.0) * idf(term.turns, corpus.turns)


def _worth(sought: Wanted, stems: Sequence[str], rule: RecallRule) -> tuple[float, bool]:
    """The most that the stems are worth for a sentence, and whether they clear one that asks."""
    values = [(_evidence(one, stems, sought.corpus, rule), one.asks) for one in sought.sentences]
    return max((value for value, _ in values), default=0.0), any(value and asks for value, asks in values)


def _evidence(sentence: Weighed, stems: Sequence[str], corpus: Corpus, rule: RecallRule) -> float:
    """What the stems are worth for the sentence; 0 where that is not enough."""
    value = _sum(sentence.weights, [stem for stem in stems if stem in sentence.weights])
    least = idf(1, corpus.turns) * (rule.asking if sentence.asks else rule.telling)
    return value if value >= max(least, rule.coverage * sentence.total) else 0.0


def _sum(weights: Mapping[str, float], stems: Iterable[str]) -> float:
    """The weights' sum; a character counts only where no pair has it."""
    stems = tuple(stems)
    in_pairs = {one for stem in stems if len(stem) == 2 and is_unspaced(stem) for one in stem}
    return sum(weights[stem] for stem in stems if not (_is_character(stem) and stem in in_pairs))


def _is_character(stem: str) -> bool:
    return len(stem) == 1 and is_unspaced(stem)


def _score(match: Match, relative_length: float) -> float:
    """BM25 with every word counted once."""
    return match.evidence * (_K1 + 1) / (1 + _K1 * (1 - _B + _B * relative_length))
