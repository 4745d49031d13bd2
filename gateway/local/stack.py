"""Everything on one machine, in order: a store, two CPU nodes, the gateway, the training worker.

The parts are processes of their own. This one starts them, starts again what dies, says so in one line
each, and ends them in the order in which nothing is lost: first the gateway, which finishes the answers
being written, then the worker and the nodes, and the store last. Whatever ends this process ends them all
(see `child`).
"""

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from gateway.local import preflight, valkey
from gateway.local.keeper import Keeper, PartFailed
from gateway.local.parts import NODE_COUNT, Part, gateway_part, node_part, valkey_part, worker_part
from gateway.local.preflight import DataFolder, NotReady
from gateway.local.screen import Screen

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Options:
    """Where the data lies and which ports the outside sees."""

    data: Path
    port: int
    admin_port: int


def run(options: Options) -> int:
    """Run the stack until it is told to end; return the exit code: 0 after an orderly end, else 1."""
    console = Console()
    folder = DataFolder(options.data)
    try:
        preflight.check_installed()
        folder.open()
        preflight.check_ports({"--port": options.port, "--admin-port": options.admin_port})
        asyncio.run(Stack(options, folder=folder, screen=Screen(console)).run())
    except (NotReady, PartFailed) as failure:
        Console(stderr=True).print(f"friendo up: {failure}", markup=False, highlight=False, soft_wrap=True)
        return 1
    finally:
        folder.close()
    return 0


class Stack:
    """The running parts. `run` returns after an orderly end and raises `PartFailed` if it cannot go on."""

    def __init__(self, options: Options, *, folder: DataFolder, screen: Screen) -> None:
        self._options = options
        self._folder = folder
        self._screen = screen
        self._keepers: dict[str, Keeper] = {}
        self._is_ending = False

    async def run(self) -> None:
        """Start everything, keep it running, end it in order."""
        serving = asyncio.current_task()
        assert serving is not None
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, self._on_signal, serving)
        try:
            await self._start()
            await self._watch()
        except asyncio.CancelledError:
            if not self._is_ending:
                raise
        finally:
            self._is_ending = True
            await self._stop()

    def _on_signal(self, serving: asyncio.Task[None]) -> None:
        """Once: end in order. Again: the user will not wait, end at once."""
        if self._is_ending:
            for keeper in self._keepers.values():
                keeper.kill()
            return
        self._is_ending = True
        serving.cancel()

    async def _start(self) -> None:
        binary = valkey.find_binary()
        assert binary is not None, "checked before"
        port = preflight.free_port()
        store = valkey.url(port)
        nodes = [node_part(number) for number in range(1, NODE_COUNT + 1)]
        names = ("valkey", *(node.name for node in nodes), "gateway", "worker")
        self._screen.open(names)
        try:
            said = await self._start_together(
                valkey_part(binary, folder=self._folder.valkey, port=port), *nodes
            )
            urls = {node.name: str(said[node.name]["url"]) for node in nodes}
            for name, url in urls.items():
                self._keepers[name].keep_port(urlsplit(url).port or 0)
            gateway = gateway_part(
                nodes=urls,
                store=store,
                archive=self._folder.path.resolve() / "archive",
                port=self._options.port,
                admin_port=self._options.admin_port,
            )
            said = await self._start_together(gateway, worker_part(store=store))
        finally:
            self._screen.close()
        self._welcome(said["gateway"], nodes=urls, store=store)

    def _welcome(self, said: dict[str, Any], *, nodes: dict[str, str], store: str) -> None:
        url = str(said["url"])
        addresses = {
            "gateway": f"{url}/v1",
            "admin": str(said["admin_url"]),
            **nodes,
            "valkey": store,
            "data": str(self._folder.path),
            "logs": str(self._folder.logs),
        }
        self._screen.welcome(addresses=addresses, url=url)

    async def _start_together(self, *parts: Part) -> dict[str, dict[str, Any]]:
        """Start parts that do not need each other; returns their ready lines by name."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {part.name: group.create_task(self._start_one(part)) for part in parts}
        except* PartFailed as failures:
            raise failures.exceptions[0] from None
        return {name: task.result() for name, task in tasks.items()}

    async def _start_one(self, part: Part) -> dict[str, Any]:
        keeper = Keeper(part, logs=self._folder.logs, say=self._screen.say)
        self._keepers[part.name] = keeper
        self._screen.loading(part.name)
        said = await keeper.start()
        self._screen.loaded(part.name)
        return said

    async def _watch(self) -> None:
        """Keep every part running; raises `PartFailed` when an essential one cannot be."""
        try:
            async with asyncio.TaskGroup() as group:
                for keeper in self._keepers.values():
                    group.create_task(self._watch_one(keeper))
        except* PartFailed as failures:
            raise failures.exceptions[0] from None

    async def _watch_one(self, keeper: Keeper) -> None:
        try:
            await keeper.watch()
        except PartFailed as failure:
            if keeper.part.essential:
                raise
            self._screen.say(f"{failure}; the rest goes on without it")

    async def _stop(self) -> None:
        self._screen.say("stopping")
        nodes = [name for name in self._keepers if name.startswith("node-")]
        for names in (("gateway",), ("worker",), nodes, ("valkey",)):
            await self._stop_together(names)
        self._screen.say("stopped")

    async def _stop_together(self, names: Iterable[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for name in names:
                if name in self._keepers:
                    group.create_task(self._keepers[name].stop())
