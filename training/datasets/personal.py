"""Secrets and personal data, found by rule: addresses, numbers with their check digits, keys. Pure.

Each kind looks for a mark first that a text without it does not have, so that ordinary talk costs little.
Rules find what has a form; names, places and what people tell in words they do not find.
"""

import ipaddress
import re
from collections.abc import Callable, Collection
from typing import Literal, get_args

Kind = Literal["private_key", "credentials", "secret", "email", "id_card", "card", "phone", "ip"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FULL_WIDTH = {0xFF10 + at: str(at) for at in range(10)} | {0xFF20: "@", 0xFF0E: "."}
_PLAIN = re.compile(r"[A-Za-z ,.;'\"!?*~\n]*")
"""Words without a digit and without the signs that every kind but the next ones has."""
_PLAIN_SECRETS = ("bearer", "password is", "akia", "asia", "aiza", "eyj")
_HAS_FULL_WIDTH = re.compile(r"[\uff10-\uff19\uff20\uff0e]")
_DIGITS = re.compile(r"[0-9][0-9 .()-]{5}")
_LONG = re.compile(r"[A-Za-z0-9+/_=-]{32}")

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@:]{0,200}:[^\s/@]{1,200}(?=@)")
_SECRET_MARKS = (
    *("sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "ASIA", "AIza", "xox"),
    *("hf_", "npm_", "eyJ"),
)
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{16,200}|gh[pousr]_[A-Za-z0-9]{20,200}|github_pat_\w{20,200}"
    r"|glpat-[\w-]{16,200}|A[KS]IA[0-9A-Z]{16}|AIza[\w-]{30,200}|xox[abeprs]-[\w-]{10,200}"
    r"|hf_[A-Za-z0-9]{20,200}|npm_[A-Za-z0-9]{30,200}"
    r"|eyJ[\w-]{10,2000}\.[\w-]{10,4000}(?:\.[\w-]{0,2000})?)"
)
_NAMED_MARKS = ("key", "secret", "token", "passw", "pwd", "bearer", "密码", "口令")
_LONG_LENGTH = 32
_SHORTEST_SECRET = 15
_NAMED = re.compile(
    r"(?i)((?:\b(?:api[_-]?key|secret[_-]?key|access[_-]?key|secret|token|passw(?:or)?d|pwd)\b[\"']?\s{0,3}[:=]"
    r"|\bbearer\b|\bpassword is\b|(?:密码|口令)(?:是|为|[:：=]))\s{0,3}[\"']?)([^\s\"',;，。；]{6,200})"
)
_RANDOM = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_=-]{32,512}(?![A-Za-z0-9+/_=-])")
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}"
)
_ID_CARD = re.compile(
    r"(?<![0-9])[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx]"
    r"(?![0-9A-Za-z])"
)
_CARD = re.compile(r"(?<![0-9A-Za-z+])(?:[0-9][ -]?){12,30}[0-9](?![0-9])")
_GROUP = re.compile(r"[0-9]+[ -]?")
_CARD_DIGITS = (13, 19)
_PHONE = re.compile(
    r"(?<![0-9A-Za-z])(?:"
    r"(?:(?:\+|00)?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}"  # Chinese mobile
    r"|\(?0[1-9][0-9]{1,2}\)?[ -]?[0-9]{7,8}"  # Chinese landline
    r"|\+[0-9]{1,3}[ .()-]{0,2}(?:[0-9][ .()-]{0,2}){5,12}[0-9]"  # international
    r"|(?:\([0-9]{3}\) ?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}"  # North American
    r")(?![0-9])"
)
_IP4 = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9.]*[0-9])")
_IP6 = re.compile(r"(?<![0-9A-Za-z:])[0-9A-Fa-f:]{0,39}::?[0-9A-Fa-f:]{1,39}(?![0-9A-Za-z:])")
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def redacted(text: str, kinds: Collection[Kind] = KINDS) -> tuple[str, tuple[Kind, ...]]:
    """The text with everything of these kinds replaced by the kind's name, as `[email]`; and what was found.

    Full-width digits and signs are read as their ASCII forms.
    """
    if _PLAIN.fullmatch(text) and not _is_named(text):
        return text, ()
    plain = text.translate(_FULL_WIDTH) if not text.isascii() and _HAS_FULL_WIDTH.search(text) else text
    found: list[Kind] = []
    for kind in _marked(plain):
        if kind not in kinds:
            continue
        changed = _REDACT[kind](plain)
        if changed != plain:
            found.append(kind)
            plain = changed
    return (plain, tuple(found)) if found else (text, ())


def _is_named(text: str) -> bool:
    lowered = text.lower()
    return any(mark in lowered for mark in _PLAIN_SECRETS)


def _marked(text: str) -> list[Kind]:
    """The kinds that may be in a text, the wider ones first."""
    kinds: list[Kind] = []
    if "-----BEGIN" in text:
        kinds.append("private_key")
    has_at = "@" in text
    if has_at and "://" in text:
        kinds.append("credentials")
    if _may_be_secret(text):
        kinds.append("secret")
    if has_at:
        kinds.append("email")
    if _DIGITS.search(text):
        kinds += ("id_card", "card", "phone", "ip")
    elif ":" in text:
        kinds.append("ip")
    return kinds


def _may_be_secret(text: str) -> bool:
    lowered = text.lower()
    for mark in _NAMED_MARKS:
        if mark in lowered:
            return True
    # Nothing of the rest has a space in it; far quicker than to look for each of them.
    longest = max(map(len, text.split()), default=0)
    if longest < _SHORTEST_SECRET:
        return False
    for mark in _SECRET_MARKS:
        if mark in text:
            return True
    return longest >= _LONG_LENGTH and _LONG.search(text) is not None


def _secrets(text: str) -> str:
    text = _SECRET.sub("[secret]", text)
    text = _NAMED.sub(lambda found: f"{found[1]}[secret]", text)
    return _RANDOM.sub(lambda found: "[secret]" if _is_random(found[0]) else found[0], text)


def _is_random(text: str) -> bool:
    """Letters of both kinds and several digits: a key. A word, a number or a path is none."""
    digits = sum(one.isdigit() for one in text)
    return digits >= 4 and any(map(str.islower, text)) and any(map(str.isupper, text))


def _is_id_card(text: str) -> bool:
    """GB 11643: the weighted sum of the first 17 digits modulo 11 names the last character."""
    total = sum(int(digit) * weight for digit, weight in zip(text, _ID_WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == text[17].upper()


def _cards(text: str) -> str:
    return _CARD.sub(_card, text)


def _card(found: re.Match[str]) -> str:
    """The numbers of a row of digits without the card's among them, wherever it stands."""
    groups = _GROUP.findall(found[0])
    for start in range(len(groups)):
        for stop in range(len(groups), start, -1):
            if _is_card("".join(groups[start:stop])):
                kept = ("".join(groups[:start]), "".join(groups[stop:]))
                parted = groups[stop - 1][-1] if groups[stop - 1][-1] in " -" else ""
                return f"{kept[0]}[card]{parted}{kept[1]}"
    return found[0]


def _is_card(text: str) -> bool:
    """Luhn: from the right, every second digit doubled; the sum of all digits ends in 0."""
    digits = [int(one) for one in reversed(text) if one.isdigit()]
    if not _CARD_DIGITS[0] <= len(digits) <= _CARD_DIGITS[1] or len(set(digits)) == 1:
        return False
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _is_ip(text: str) -> bool:
    """An address of somebody: neither this machine nor every one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    is_whole = address.version == 4 or (text.count(":") > 2 and any(map(str.isdigit, text)))  # not `a::b`
    return is_whole and not (address.is_loopback or address.is_unspecified)


def _if(
    pattern: re.Pattern[str], kind: Kind, test: Callable[[str], bool] | None = None
) -> Callable[[str], str]:
    name = f"[{kind}]"
    if test is None:
        return lambda text: pattern.sub(name, text)
    return lambda text: pattern.sub(lambda found: name if test(found[0]) else found[0], text)


def _ips(text: str) -> str:
    text = _if(_IP4, "ip", _is_ip)(text)
    return _if(_IP6, "ip", _is_ip)(text) if ":" in text else text


_REDACT: dict[Kind, Callable[[str], str]] = {
    "private_key": _if(_PRIVATE_KEY, "private_key"),
    "credentials": _if(_CREDENTIALS, "credentials"),
    "secret": _secrets,
    "email": _if(_EMAIL, "email"),
    "id_card": _if(_ID_CARD, "id_card", _is_id_card),
    "card": _cards,
    "phone": _if(_PHONE, "phone"),
    "ip": _ips,
}
