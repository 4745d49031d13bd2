"""The stem of an English word, so that `sisters` finds `sister`: Porter's algorithm. Pure.

M. F. Porter, An algorithm for suffix stripping, Program 14 (1980). A word is [C](VC)^m[V], where C and V are
runs of consonants and of vowels; endings go in five steps, most of them only where enough is left of the
word, by its measure m. Words with other than ASCII letters stay as they are.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

_CONSONANTS = "[^aeiou][^aeiouy]*"
_VOWELS = "[aeiouy][aeiou]*"
_HAS_VOWEL = re.compile(f"(?:{_CONSONANTS})?[aeiouy]").match
_M_ABOVE_0 = re.compile(f"(?:{_CONSONANTS})?{_VOWELS}{_CONSONANTS}").match
_M_IS_1 = re.compile(f"(?:{_CONSONANTS})?{_VOWELS}{_CONSONANTS}(?:{_VOWELS})?").fullmatch
_M_ABOVE_1 = re.compile(f"(?:{_CONSONANTS})?(?:{_VOWELS}{_CONSONANTS}){{2}}").match
_IS_SHORT = re.compile(f"{_CONSONANTS}[aeiouy][^aeiouwxy]").fullmatch
"""A short syllable and nothing else before it: `hop`, not `snow`."""
_DOUBLE = re.compile(r"([^aeioulsz])\1$").search

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble",
    "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate",
    "alism": "al", "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive",
    "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_STEP_4 = {
    "al": "", "ance": "", "ence": "", "er": "", "ic": "", "able": "", "ible": "", "ant": "", "ement": "",
    "ment": "", "ent": "", "ion": "", "ou": "", "ism": "", "ate": "", "iti": "", "ous": "", "ive": "",
    "ize": "",
}  # fmt: skip


def _ending(endings: Iterable[str]) -> re.Pattern[str]:
    """Matches a word with one of these endings, the longest first; a lone `ion` only behind s or t."""
    longest_first = sorted(endings, key=len, reverse=True)
    return re.compile(f"(.+?)({'|'.join('(?<=[st])ion' if one == 'ion' else one for one in longest_first)})")


_ENDING_2, _ENDING_3, _ENDING_4 = map(_ending, (_STEP_2, _STEP_3, _STEP_4))


@lru_cache(maxsize=32_768)
def stem(word: str) -> str:
    """The stem of a word in lower case."""
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return word
    word = _without_participle(_without_plural(word))
    if word.endswith("y") and _HAS_VOWEL(word[:-1]):
        word = f"{word[:-1]}i"
    for ending, endings, is_enough in (
        (_ENDING_2, _STEP_2, _M_ABOVE_0),
        (_ENDING_3, _STEP_3, _M_ABOVE_0),
        (_ENDING_4, _STEP_4, _M_ABOVE_1),
    ):
        found = ending.fullmatch(word)
        if found and is_enough(found[1]):
            word = found[1] + endings[found[2]]
    return _without_last(word)


def _without_plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _without_participle(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _M_ABOVE_0(word[:-3]) else word
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            left = word[: -len(ending)]
            return _mended(left) if _HAS_VOWEL(left) else word
    return word


def _mended(word: str) -> str:
    """What is left of a participle, as the verb is written: hop(p)ing, fil(e)ing."""
    if word.endswith(("at", "bl", "iz")):
        return f"{word}e"
    if _DOUBLE(word):
        return word[:-1]
    return f"{word}e" if _IS_SHORT(word) else word


def _without_last(word: str) -> str:
    """Without a last e that is not heard, and with a single l."""
    if word.endswith("e"):
        left = word[:-1]
        if _M_ABOVE_1(left) or (_M_IS_1(left) and not _IS_SHORT(left)):
            word = left
    return word[:-1] if word.endswith("ll") and _M_ABOVE_1(word) else word
