"""What a Kubernetes API says of a service's endpoints. Pure.

An endpoint that is not ready may be loading its model, or be too busy for its probe: whether it gets requests
is for its own health to say. One that terminates is on its way out.
"""

import msgspec

from gateway.nodes.addresses import is_link_local


class _Conditions(msgspec.Struct, frozen=True):
    terminating: bool | None = None


class _Endpoint(msgspec.Struct, frozen=True):
    addresses: list[str]
    conditions: _Conditions | None = None


class _Port(msgspec.Struct, frozen=True):
    port: int | None = None


class _Slice(msgspec.Struct, frozen=True, rename="camel"):
    address_type: str
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class _Slices(msgspec.Struct, frozen=True):
    items: list[_Slice]


def path_of(service: str) -> str:
    """Where the API lists the slices of `NAMESPACE/SERVICE`."""
    namespace, _, name = service.partition("/")
    return (
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        f"?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
    )


def read_slices(body: bytes, port: int) -> set[tuple[str, int]]:
    """Every address with its port (`port` unless that is 0). Raises ValueError for what is no such list."""
    try:
        slices = msgspec.json.decode(body, type=_Slices).items
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    found = set()
    for one in slices:
        own = port or next((named.port for named in one.ports or () if named.port), 0)
        if one.address_type not in ("IPv4", "IPv6") or not own:
            continue
        for endpoint in one.endpoints or ():
            is_leaving = endpoint.conditions is not None and endpoint.conditions.terminating is True
            # All addresses of an endpoint are the same pod.
            if endpoint.addresses and not is_leaving and not is_link_local(endpoint.addresses[0]):
                found.add((endpoint.addresses[0], own))
    return found
