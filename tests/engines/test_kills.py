"""A real node that is killed and comes back while people talk: who had no answer yet notices nothing."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

from bench.engines.node import EngineNode
from tests.conftest import Valkey
from tests.engines.asking import Said, ask, asked_until
from tests.engines.lender import Lender
from tests.gateway_process import Gateway, running_gateway
from tests.node_traffic import control


@dataclass(slots=True)
class Talk:
    """A dialogue that goes on, turn after turn, until it is told to end."""

    gateway: Gateway
    name: str
    is_over: threading.Event
    turns: list[Said] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def go_on(self) -> None:
        """Talk. A turn that was broken off is asked again, as a person would."""
        for number in itertools.count():
            if self.is_over.is_set():
                return
            try:
                said = ask(
                    self.gateway.url,
                    f"{self.name}, fact {number}: boat {number * 7} is blue.",
                    before=({"role": "system", "content": f"You are {self.name}."},) if not number else (),
                    headers={"x-session-id": self.name},
                    stream=True,
                )
            except httpx.HTTPError as error:
                self.broken.append(repr(error))
                continue
            self.turns.append(said)


@contextlib.contextmanager
def talking(gateway: Gateway) -> Iterator[list[Talk]]:
    """Talks that go on until the block is left; then each has ended its turn."""
    over = threading.Event()
    talks = [Talk(gateway, name, over) for name in ("Luna", "Nova", "Vega", "Lyra")]
    threads = [threading.Thread(target=talk.go_on) for talk in talks]
    for thread in threads:
        thread.start()
    try:
        yield talks
    finally:
        over.set()
        for thread in threads:
            thread.join(120)


def go_on(talks: list[Talk], turns: int) -> bool:
    """Whether every talk has so many turns more in time."""
    wanted = [len(talk.turns) + turns for talk in talks]
    return asked_until(
        lambda: all(len(talk.turns) >= least for talk, least in zip(talks, wanted, strict=True)), within_s=180
    )


def test_a_node_is_killed_and_comes_back(
    pair: tuple[EngineNode, ...], lender: Lender, valkey: Valkey
) -> None:
    """Under four talks: at most those that were being written break off, with an error and no clean end."""
    dying, numbers = pair[0], itertools.count()
    nodes = [f"{one.engine}={one.url}" for one in pair]
    with (
        running_gateway(*nodes, options=("--redis", valkey.url)) as gateway,
        control(gateway) as admin,
        talking(gateway) as talks,
    ):
        assert go_on(talks, 3)
        assert asked_until(lambda: admin.nodes()[dying.name]["running"] > 0, within_s=60, every_s=0.02)
        dying.kill()
        killed_at = [len(talk.turns) for talk in talks]
        assert go_on(talks, 3)
        assert "away" == admin.states()[dying.name]
        lender.lend(*(one.traits for one in pair))
        assert asked_until(lambda: admin.states()[dying.name] == "healthy", within_s=60)
        assert asked_until(
            lambda: ask(gateway.url, f"{next(numbers)} is there?", max_tokens=1).node == dying.name,
            within_s=60,
        )

    turns = [turn for talk in talks for turn in talk.turns]
    failed = [turn for turn in turns if not turn.is_whole]
    assert [] == [talk.broken for talk in talks if talk.broken]
    assert [] == [turn for turn in failed if not turn.has_begun]
    assert len(failed) <= len(talks)
    assert all(turn.error for turn in failed)
    after = [turn for talk, at in zip(talks, killed_at, strict=True) for turn in talk.turns[at + 1 :]]
    assert "bound" in {turn.route for turn in after}
    assert all(talk.turns[-1].prompt > talk.turns[0].prompt for talk in talks)
    print(f"{len(turns)} turns, {len(failed)} broken off while they were written, none before")
