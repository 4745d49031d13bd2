"""The words of a text, as recall compares them: the same for what was said and for what is asked. Pure.

Scripts written with spaces give folded words (case, width and diacritics dropped); stemming is the index's
business. Scripts written without spaces give every character and every pair of neighbours: pairs stand in for
words, which needs no dictionary and serves Chinese, Japanese, Korean and Thai alike, and a character stands
for itself where the pair around it is another one. Function words, greetings, and the words with which
people ask for a memory ("do you remember", 还记得) say nothing about what is meant: they are left out, and in
a script without spaces they end the run they stand in.
"""

import re
import unicodedata

_MAX_CHARS = 64
"""A longer word is cut: nobody says it, and nobody asks for it."""

# Ideographs with 々〆〇, kana, Hangul, and the scripts of Thailand, Laos, Myanmar and Cambodia.
_UNSPACED = (
    r"\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")

_GREETING = re.compile(
    r"\bgood (?:night|morning|evening|afternoon|day)\b|\bsleep (?:well|tight)\b|\bsweet dreams\b|\bsee you\b"
    r"|\btake care\b|\b(?:ha|he){2,}h?\b"
)
# Each of them has one of these in it, and looking for these is ten times as quick.
_PARTS_OF_GREETINGS = (
    *("good ", "sleep ", "sweet dreams", "see you", "take care"),
    *("haha", "hahe", "heha", "hehe"),
)
_EMPTY_SPACED = frozenset(
    """
    a about actually after again ago ain all already also always am an and any anything are aren as at aww
    be because been before being but by bye can could couldn d did didn do does doesn doing don down each
    else even ever every everything few for from get gets getting go goes going gonna goodnight got had hadn
    has hasn have haven having he hello her here hers hey hi him his hmm how i if im in into is isn it its
    just kind know let like ll lol lot m maybe me mean mention mentioned might mine more most much must my
    myself need never no not nothing now of off oh ok okay on once one only or other our out over own please
    really recall remember remembered remind right s said same say saying says see she should shouldn so
    some something still such sure t talk talked tell than thank thanks that the their them then there these
    they thing things think this those though time to told too u ugh up us ve very want wanted was wasn way
    we well were weren what whatever when where which while who whom whose why will with won would wouldn
    wow yay yeah yes yet you your yours yourself
    """.split()  # noqa: SIM905 - a list of words reads best as words
)
# Longer ones first, so that none is broken by a shorter one inside it.
_EMPTY_UNSPACED = re.compile(
    "还记得|還記得|为什么|為什麼|怎么样|怎麼樣|有没有|有沒有|是不是|早上好|晚上好|下午好|的时候|的時候|那时候|那時候|"
    "记得|記得|来着|來著|告诉|告訴|说过|說過|提过|提過|之前|以前|上次|什么|什麼|怎么|怎麼|怎样|怎樣|哪里|哪裡|哪儿|哪個|"
    "哪个|多少|我们|我們|你们|你們|他们|他們|她们|咱们|自己|这个|這個|那个|那個|这样|那样|这么|那么|这里|那里|这儿|那儿|"
    "因为|因為|所以|但是|可是|不过|如果|虽然|然后|还是|還是|就是|不是|只是|可以|没有|沒有|知道|觉得|覺得|有点|一个|一個|"
    "一下|一些|一点|已经|真的|其实|现在|今天|好的|好吧|好啊|好呀|好吗|你好|您好|晚安|早安|谢谢|謝謝|再见|再見|拜拜|"
    "[的了吗嗎呢吧啊呀哦嗯嘛啦么麼哈呵唉哎喔噢哇欸我你您他她它们們咱是也都就很这這那哪还還在和跟有给給]"
)


def words(text: str) -> list[str]:
    """The words of a text in order, repetitions included; nothing for a text that says nothing."""
    if text.isascii():
        runs = _ASCII_WORD.findall(_without_greetings(text.lower()))
        return [run[:_MAX_CHARS] for run in runs if run not in _EMPTY_SPACED]
    found: list[str] = []
    for run in _WORD.findall(_without_greetings(unicodedata.normalize("NFKC", text).lower())):
        if _IS_UNSPACED.match(run):
            for part in _EMPTY_UNSPACED.split(run):
                found += part
                found += [part[at : at + 2] for at in range(len(part) - 1)]
        elif (word := _folded(run)) not in _EMPTY_SPACED:
            found.append(word)
    return found


def _without_greetings(text: str) -> str:
    may_greet = any(map(text.__contains__, _PARTS_OF_GREETINGS))
    return _GREETING.sub(" ", text) if may_greet else text


def is_unspaced(word: str) -> bool:
    """Whether a word comes from a script without spaces, so that it is a character or a pair."""
    return bool(_IS_UNSPACED.match(word))


def _folded(word: str) -> str:
    """The word without its diacritics."""
    if word.isascii():
        return word[:_MAX_CHARS]
    plain = (one for one in unicodedata.normalize("NFKD", word) if not unicodedata.combining(one))
    return "".join(plain)[:_MAX_CHARS]
