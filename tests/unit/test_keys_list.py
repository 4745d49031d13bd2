"""What `friendo keys list` shows."""

import io

import pytest
from rich.console import Console

from gateway.cli.keys import _as_table, _fields
from gateway.keys.key import Grant, Key

KEY = Key(
    id="abcdefghijklmnop",
    digest=b"",
    grant=Grant(tenant="acme-corporation", name="the [red] application", models=frozenset({"my-companion"})),
    created_at=0.0,
)


@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_an_id_is_never_cut_off(width: int) -> None:
    """Whoever revokes a key types its id, whatever the terminal's width."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True).print(_as_table([_fields(KEY, now=1.0)]))

    assert KEY.id in out.getvalue()


def test_a_name_is_shown_as_it_was_given() -> None:
    """Brackets are no markup."""
    out = io.StringIO()
    Console(file=out, width=200).print(_as_table([_fields(KEY, now=1.0)]))

    assert "the [red] application" in out.getvalue()
