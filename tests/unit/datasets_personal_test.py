"""Secrets and personal data by rule: what has the form and the check digit, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.personal import KINDS, redacted

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAK\n-----END RSA PRIVATE KEY-----"
TOKEN = "Zx9" + "aB3dE6" * 6


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to ada.l+x@mail.example.org!", "write to [email]!"),
        ("ada\uff20example.org", "[email]"),
        ("my number is 138 1234 5678.", "my number is [phone]."),
        ("手机13812345678，微信同号", "手机[phone]，微信同号"),
        ("手机１３８１２３４５６７８", "手机[phone]"),
        ("+86 13812345678", "[phone]"),
        ("电话 010-62345678", "电话 [phone]"),
        ("call +44 20 7946 0958 today", "call [phone] today"),
        ("(212) 555-0187", "[phone]"),
        ("身份证 11010519491231002X", "身份证 [id_card]"),
        ("card 4111 1111 1111 1111 ok", "card [card] ok"),
        ("card 4111-1111-1111-1111", "card [card]"),
        ("order 20231114 4111 1111 1111 1111 of today", "order 20231114 [card] of today"),
        ("at 203.0.113.7 now", "at [ip] now"),
        ("2001:db8::8a2e:370:7334", "[ip]"),
        ("key sk-abcdEFGH1234ijklMNOP", "key [secret]"),
        ("AKIAIOSFODNNEXAMPLEQ", "[secret]"),
        ("the password is swordfish", "the password is [secret]"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ", "[secret]"),
        ("AKIAIOSFODNN7EXAMPLE", "[secret]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123", "[secret]"),
        ("password: hunter22!", "password: [secret]"),
        ("密码是 abc123456", "密码是 [secret]"),
        (f"so {TOKEN} it is", "so [secret] it is"),
        (f"look: {KEY} !", "look: [private_key] !"),
        ("https://ada:pw123@example.org/x", "https://[credentials]@example.org/x"),
        ("postgres://u:p@ss@db/x", "postgres://[credentials]@ss@db/x"),
    ],
)
def test_what_has_the_form_is_replaced_by_its_kind(text: str, clean: str) -> None:
    """And nothing around it."""
    assert clean == redacted(text)[0]
    assert redacted(text)[1]


@pytest.mark.parametrize(
    "text",
    [
        "身份证 110105194912310021",  # a wrong check digit
        "card 4111 1111 1111 1112",  # a wrong sum
        "0000 0000 0000 0000",
        "at 999.1.1.1 and 127.0.0.1",
        "see you at 12:30:45",
        "the year 1984, page 123, 3.14159265",
        "user@home is no address",
        "https://example.org/a:b/c",
        "a token of love, the key to my heart, secret: no",
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
        "ha" * 40,
        "==============================================",
        "order 2023111400012345",
        "std::vector and a::b",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    """Words, numbers without their check digit, addresses of this machine."""
    assert (text, ()) == redacted(text)


@given(st.text(max_size=200))
def test_redaction_is_idempotent(text: str) -> None:
    """What stands in the place of something is nothing to be found."""
    once = redacted(text)[0]
    assert (once, ()) == redacted(once)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_that_nobody_asked_for_stay(kind: str) -> None:
    """Each kind is a choice."""
    text = f"a@b.org 13812345678 203.0.113.7 {TOKEN} 4111111111111111 11010519491231002X {KEY} ftp://u:p@h"
    clean, found = redacted(text, [one for one in KINDS if one != kind])
    assert kind not in found
    assert f"[{kind}]" not in clean
    assert f"[{kind}]" in redacted(text, [kind])[0]  # type: ignore[list-item]
