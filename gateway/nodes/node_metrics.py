"""What Prometheus sees of the nodes: how they are, and what their caches tell."""

from collections.abc import Callable, Iterator

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.nodes.roster import Roster
from gateway.routing.node import Node

_STATES = ("unknown", "trusted", "suspect")
_GAUGES: dict[str, tuple[str, Callable[[Node], float | None]]] = {
    "friendo_node_healthy": ("1 while the node answers its probes.", lambda node: float(node.is_healthy)),
    "friendo_node_draining": ("1 while it gets no new requests.", lambda node: float(node.is_draining)),
    "friendo_node_running": ("Requests of this gateway on it.", lambda node: float(node.running)),
    "friendo_node_waiting": ("Requests in its queue, as it says.", lambda node: node.waiting),
    "friendo_node_kept_ratio": (
        "Share of the tokens lately expected in its cache that were found there.",
        lambda node: node.truth.kept,
    ),
    "friendo_node_kv_usage": ("Share of its KV cache in use, as it says.", lambda node: node.kv_usage),
}


class NodeMetrics(Collector):
    """The nodes of a roster, read when somebody asks. What is unknown is left out."""

    def __init__(self, roster: Roster, clock: Callable[[], float]) -> None:
        self._roster = roster
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        nodes = self._roster.nodes
        for name, (told, value_of) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, told, labels=("node",))
            for node in nodes:
                if (value := value_of(node)) is not None:
                    gauge.add_metric((node.id,), value)
            yield gauge
        yield from self._caches(nodes)
        yield self._events(nodes)

    def _caches(self, nodes: tuple[Node, ...]) -> Iterator[Metric]:
        epoch = GaugeMetricFamily(
            "friendo_node_kv_epoch", "Times that its cache was seen to be dropped.", labels=("node",)
        )
        horizon = GaugeMetricFamily(
            "friendo_node_kv_horizon_seconds",
            "How long prefixes lately lay unused before they were evicted.",
            labels=("node",),
        )
        state = GaugeMetricFamily(
            "friendo_node_kv_state", "1 for what is known of its cache.", labels=("node", "state")
        )
        now = self._clock()
        for node in nodes:
            known = node.retention.knowledge(now)
            epoch.add_metric((node.id,), known.epoch)
            if known.horizon_s is not None:
                horizon.add_metric((node.id,), known.horizon_s)
            for one in _STATES:
                state.add_metric((node.id, one), float(one == known.state))
        yield from (epoch, horizon, state)

    def _events(self, nodes: tuple[Node, ...]) -> Metric:
        events = CounterMetricFamily(
            "friendo_node_kv_events", "What came of its KV events, by kind.", labels=("node", "kind")
        )
        for node in nodes:
            feed = self._roster.watch(node.id).feed
            counts = msgspec.to_builtins(feed.counts) if feed is not None else {}
            for kind, count in counts.items():
                if isinstance(count, int):
                    events.add_metric((node.id, kind), count)
        return events
