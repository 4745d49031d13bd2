"""One stub node as its routes see it."""

import time
from dataclasses import dataclass, field

from bench.stub_node.adapters import Adapters
from bench.stub_node.dialects import DIALECTS
from bench.stub_node.dialects.shapes import Dialect
from bench.stub_node.engine import Engine
from bench.stub_node.faults import Faults
from bench.stub_node.kv_wire import KvWire
from bench.stub_node.spec import StubSpec
from bench.stub_node.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Node:
    spec: StubSpec
    engine: Engine
    dialect: Dialect
    events: KvWire
    adapters: Adapters = field(default_factory=Adapters)
    faults: Faults = field(default_factory=Faults)
    traffic: Traffic = field(default_factory=Traffic)
    started: int = field(default_factory=lambda: int(time.time()))


def new_node(spec: StubSpec) -> Node:
    events = KvWire()
    engine = Engine(spec, events.note)
    return Node(spec=spec, engine=engine, dialect=DIALECTS[spec.engine], events=events)
