"""A whole model by restarts, one node at a time: drained, restarted by somebody, asked, given back."""

from contextlib import ExitStack

from tests.gateway_process import running_gateway, running_stub, until
from tests.node_traffic import control
from tests.ports import free_port
from tests.rollout_desk import Desk, desk, say

ALIAS, BIG = "luna", "luna--big"


class Operator:
    """Restarts whichever node is to be restarted, with what it is to be restarted with."""

    def __init__(self, stack: ExitStack) -> None:
        self.ports = [free_port(), free_port()]
        self.stacks = {port: stack.enter_context(ExitStack()) for port in self.ports}
        self.restarted: list[str] = []
        for port in self.ports:
            self.stacks[port].enter_context(running_stub(port=port))

    def urls(self) -> list[str]:
        return [f"vllm=http://127.0.0.1:{port}" for port in self.ports]

    def look(self, admin: Desk) -> None:
        """Restart what waits for it."""
        shown = admin.shown(ALIAS)
        for node in shown["nodes"]:
            if "it can be restarted now" in (node["problem"] or "") and node["draining"]:
                port = int(node["id"].rpartition(":")[2])
                self.stacks[port].close()
                self.stacks[port].enter_context(running_stub(port=port, model=shown["turning"]["to"]))
                self.restarted.append(node["id"])
                assert until(lambda: admin.shown(ALIAS)["turning"] != shown["turning"], within_s=60)


def test_a_whole_model_comes_and_goes_node_by_node() -> None:
    """At every moment somebody answers; never are two nodes out."""
    with ExitStack() as stack:
        operator = Operator(stack)
        with (
            running_gateway(*operator.urls()) as gateway,
            desk(gateway) as admin,
            control(gateway) as nodes,
        ):

            def settles(state: str, model: str, count: int) -> bool:
                operator.look(admin)
                states = nodes.states()
                assert sum(one == "draining" for one in states.values()) <= 1
                assert 200 == say(gateway, ALIAS, "a dialogue").status
                serving = sum(model in one["models"] for one in nodes.nodes().values() if one["healthy"])
                is_out = "draining" in states.values()
                return admin.state(ALIAS) == state and serving == count and not is_out

            start = {"kind": "model", "base": "stub", "steps": [1.0], "approved": True}
            admin.start(ALIAS, "big", "", **start).raise_for_status()
            assert until(lambda: settles("sharing", BIG, 1), within_s=90, every_s=0.3)
            assert "stub" == say(gateway, ALIAS, "a dialogue").version
            assert BIG == say(gateway, ALIAS, "another dialogue").version
            admin.do("widen", ALIAS).raise_for_status()
            assert until(lambda: settles("settled", BIG, 2), within_s=90, every_s=0.3)
            assert BIG == say(gateway, ALIAS, "a dialogue").version
            admin.do("back", ALIAS).raise_for_status()
            assert until(lambda: settles("settled", "stub", 2), within_s=90, every_s=0.3)
            assert "stub" == say(gateway, ALIAS, "another dialogue").version

    assert 4 == len(operator.restarted)
