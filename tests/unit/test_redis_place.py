"""A store's URL: what it means, what is refused, and that nothing of it is repeated."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.redis_place import RedisPlace, parse_place

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", RedisPlace(addresses=(("localhost", 6379),))),
        ("redis://:pw@h:1/3", RedisPlace(addresses=(("h", 1),), database=3, password="pw")),
        ("redis://h?db=3", RedisPlace(addresses=(("h", 6379),), database=3)),
        ("redis://[::1]:7/0", RedisPlace(addresses=(("::1", 7),))),
        ("unix:///run/v.sock?db=2", RedisPlace(socket="/run/v.sock", database=2)),
        ("rediss://u@h", RedisPlace(addresses=(("h", 6379),), username="u", tls={})),
        (
            "rediss+cluster://a:1,b?ssl_ca_certs=/ca.pem&ssl_check_hostname=no",
            RedisPlace(
                kind="cluster",
                addresses=(("a", 1), ("b", 6379)),
                tls={"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
            ),
        ),
        (
            "redis+sentinel://u:p@a,b:1/2?master=m&sentinel_password=s%2F",
            RedisPlace(
                kind="sentinel",
                addresses=(("a", 26379), ("b", 1)),
                database=2,
                username="u",
                password="p",
                master="m",
                sentinel_password="s/",
            ),
        ),
    ],
)
def test_url_means_its_place(url: str, expected: RedisPlace) -> None:
    """Every kind of place, with defaults for what is left out."""
    assert expected == parse_place(url)


@given(user=texts, password=texts)
def test_any_user_and_password_can_be_written(user: str, password: str) -> None:
    """Escaped in the URL, or the password as it is beside it, which wins."""
    escaped = parse_place(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@h")
    beside = parse_place(f"redis://{quote(user, safe='')}:other@h", password=password)

    assert (user, password) == (escaped.username, escaped.password)
    assert escaped == beside


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("localhost:6379", "expected redis://"),
        ("http://hunter2@h", "expected redis://"),
        ("redis+ring://h", "expected redis://"),
        ("redis:// h", "without blanks"),
        ("redis://hunter2\n@h", "without line breaks|without blanks"),
        ("redis://", "expected HOST:PORT"),
        ("redis://a,b", "several hosts need"),
        ("redis://h:0", "expected HOST:PORT"),
        ("redis://u:hun/ter2@h", "write / "),
        ("redis://u:hun#ter2@h", "write / "),
        ("redis://u:hun?ter2@h", "write / "),
        ("redis://h/hunter2", "the database is a number"),
        ("redis+cluster://h/1", "no databases"),
        ("redis+sentinel://h", "add .master="),
        ("redis://h?master=hunter2", "unknown option"),
        ("redis://h?ssl_ca_certs=hunter2", "unknown option"),
        ("redis://h?decode_responses=hunter2", "unknown option"),
        ("rediss://h?ssl_check_hostname=hunter2", "true or false"),
        ("rediss://h?ssl_cert_reqs=hunter2", "required, optional or none"),
        ("rediss://h?ssl_ca_certs=", "needs a value"),
        ("unix://", "unix:///path"),
    ],
)
def test_url_without_a_place_is_refused_with_advice(url: str, advice: str) -> None:
    """What to write, and nothing of what was written: it may be a password that was not escaped."""
    with pytest.raises(ValueError, match=advice) as caught:
        parse_place(url)

    assert not {"hunter2", "hun", "ter2"} & set(str(caught.value).replace("/", " ").split())


def test_place_does_not_show_its_passwords() -> None:
    """Also where somebody prints it."""
    place = parse_place("redis+sentinel://u:hunter2@h?master=m&sentinel_password=hunter3")

    assert "hunter" not in repr(place)
