"""Random commands for conversation stores: what `store_pair` gives to two of them at once.

A command is a name and its arguments, drawn without knowing what is stored; the pair makes them fit.
"""

from typing import Any

from hypothesis import strategies as st

from history.conversation import Binding, Memory
from history.ports import Change, Claim
from tests.contract.store_stage import turn

LEASE_MS = 10_000
TTL_MS = 24_000
"""Everything that ends does so at an even second or between two odd ones: two clocks that run a little apart
agree on what is over."""

owners = st.sampled_from(["a", "b", "c", "d"])
users = st.sampled_from(["u", "v"])
places = st.sampled_from([0, 0, 0, 1, 2, 3])
small = st.integers(-1, 5)
items = st.sampled_from(["msg_1", "\u9879"])
leases = st.integers(0, 5)
texts = st.lists(st.sampled_from("xyz"), max_size=3)
changes = st.builds(
    lambda texts, **fields: Change(append=tuple(turn(text) for text in texts), **fields),
    texts,
    keep=small,
    at=st.floats(0, 1e10),
    save_branch=st.booleans(),
    into_branch=st.sampled_from([0, 0, 0, 1, 2]),
    branches=st.lists(
        st.builds(lambda at, text: (at, (turn(text),)), st.integers(0, 3), st.sampled_from("vw")), max_size=2
    ).map(tuple),
    cut=st.none() | small,
    shows=st.none() | small,
    grows_to=st.none() | small,
    shown=st.none() | st.integers(0, 5).map(lambda n: Memory(covers_to=n, version=9, summary="s")),
    metadata=st.none() | st.just(b'{"a":"b"}'),
    persona=st.none() | st.binary(max_size=3),
    new_epoch=st.booleans(),
    user=st.none() | st.sampled_from(["", "u", "v"]),
    character=st.none() | st.text(max_size=3),
    binding=st.none() | st.just(Binding(node="n", prefix=b"\0", tokens=1, at=0.5)),
)
claims = st.builds(
    Claim,
    owner=owners,
    lease_ms=st.just(LEASE_MS),
    queue_limit=st.sampled_from([0, 1, 3, 3]),
    must_exist=st.sampled_from([False, False, False, True]),
    interrupt=st.booleans(),
    digest_turns=st.integers(0, 3),
)
spans = st.sampled_from([2_000, 4_000, 4_000, 4_000, 12_000])
late = st.sampled_from([0, 0, 0, 1])
wrong = st.sampled_from([b"", b"", b"x"])
meanwhile = st.none() | st.tuples(
    st.integers(2, 12),
    st.one_of(
        st.tuples(st.just("deliver")),
        st.tuples(st.just("write"), changes),
        st.tuples(st.just("erase")),
        st.tuples(st.just("pass"), st.just(TTL_MS)),
    ),
)
"""What happens to a conversation before the so-manieth call of a fork of it; the first says what to copy."""

# `turn` and `fitting` keep what there is, as a gateway does; a plain `commit` is mostly one to be refused.
# `note` is a compaction that begins, `deliver` one that ends, long after perhaps; `remember` is both at once.
# Common commands stand more than once: what erases everything must be rare for the rest to be seen.
commands = st.sampled_from(
    [
        *["begin"] * 4,
        *["turn", "append", "note", "deliver"] * 6,
        *["edit", "fork"] * 4,
        *["fitting", "renew", "release", "pass", "remember"] * 3,
        *["select", "shed", "restore"] * 2,
        *["commit", "repeat", "leave", "register", "unregister", "rebind", "describe", "rate", "embed"],
        *["read", "branch", "branches_at", "ratings", "digests", "conversations_of", "erase", "erase_user"],
    ]
).flatmap(lambda name: st.tuples(st.just(name), *ARGUMENTS[name]))
ARGUMENTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "begin": (places, claims),
    "turn": (places, claims, changes),
    "fitting": (places, changes),
    "commit": (places, leases, changes),
    "repeat": (places,),
    "renew": (places, leases),
    "release": (places, leases),
    "leave": (places, owners),
    "erase": (places,),
    "read": (places, small, small),
    "branch": (places, small),
    "branches_at": (places, st.integers(0, 3)),
    "rate": (places, items, st.sampled_from([b"up", b"down", b""])),
    "ratings": (places, st.lists(items)),
    "embed": (places, late, st.integers(0, 5), texts, st.sampled_from("mmn"), st.integers(1, 4)),
    "digests": (places, st.integers(0, 3), st.none() | st.integers(0, 5)),
    "remember": (places, late, st.integers(0, 4), st.integers(0, 5), wrong),
    "note": (places, st.integers(1, 4)),
    "deliver": (places,),
    "append": (places, texts),
    "edit": (places, st.integers(1, 3), texts),
    "select": (places, st.integers(0, 3), st.integers(1, 3)),
    "fork": (places, st.none() | st.integers(0, 5), meanwhile),
    "rebind": (
        places,
        st.builds(Binding, node=st.just("m"), prefix=st.just(b"1"), tokens=small, at=st.just(1.5)),
        small,
    ),
    "shed": (places, late, small, wrong),
    "restore": (places, st.integers(1, 3), late),
    "describe": (places, st.sampled_from([b"", b'{"c":1}'])),
    "register": (places, users),
    "unregister": (places, users),
    "conversations_of": (users,),
    "erase_user": (users,),
    "pass": (places, spans),
}
