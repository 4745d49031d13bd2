"""What a gateway counts and says of its nodes, read as an operator would."""

from collections import Counter
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway_process import Gateway


def events(gateway: Gateway) -> Counter[str]:
    """Its rare events so far."""
    return Counter(_get(gateway, "/admin/cache").json()["events"])


def nodes(gateway: Gateway) -> list[dict[str, Any]]:
    """Its nodes."""
    listed: list[dict[str, Any]] = _get(gateway, "/admin/nodes").json()["data"]
    return listed


def statuses(gateway: Gateway) -> Counter[int]:
    """How many requests ended with which status."""
    ended: Counter[int] = Counter()
    for sample in _samples(gateway):
        if sample.name == "friendo_requests_total":
            ended[int(sample.labels["status"])] += int(sample.value)
    return ended


def metric(gateway: Gateway, name: str) -> float:
    """The one sample of that name."""
    (value,) = [sample.value for sample in _samples(gateway) if sample.name == name]
    return float(value)


def is_idle(gateway: Gateway) -> bool:
    """Whether nothing runs, nothing is owed and nothing waits."""
    counters = [(node["running"], node["pending_tokens"]) for node in nodes(gateway)]
    return set(counters) == {(0, 0)} and not metric(gateway, "friendo_queue_length")


def _samples(gateway: Gateway) -> list[Any]:
    text = _get(gateway, "/metrics").text
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def _get(gateway: Gateway, path: str) -> httpx.Response:
    return httpx.get(f"{gateway.admin_url}{path}", trust_env=False).raise_for_status()
