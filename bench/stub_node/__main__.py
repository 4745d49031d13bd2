"""`python -m bench.stub_node`: one stub node, until SIGTERM or SIGINT or, if asked, until its input ends."""

import argparse
import asyncio
import os
import signal
import sys
from dataclasses import fields
from typing import get_type_hints

import msgspec
import uvloop

from bench.stub_node.process import Announcement
from bench.stub_node.server import serve
from bench.stub_node.spec import ENGINES, StubSpec


def parse(argv: list[str]) -> tuple[StubSpec, argparse.Namespace]:
    """The node's traits and where to serve it; every field of StubSpec is an option."""
    parser = argparse.ArgumentParser(prog="python -m bench.stub_node", description=StubSpec.__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--control-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input is closed")
    hints = get_type_hints(StubSpec)
    for field in fields(StubSpec):
        kind = str if field.name == "engine" else hints[field.name]
        choices = ENGINES if field.name == "engine" else None
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, default=field.default, choices=choices
        )
    options = parser.parse_args(argv)
    try:
        return StubSpec(**{field.name: getattr(options, field.name) for field in fields(StubSpec)}), options
    except ValueError as error:
        parser.error(str(error))


async def run(spec: StubSpec, options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    if options.end_with_stdin:
        loop.add_reader(sys.stdin.fileno(), _end_with, sys.stdin.fileno(), ended)
    async with serve(spec, host=options.host, port=options.port, control_port=options.control_port) as stub:
        print(msgspec.json.encode(Announcement(stub.url, stub.control_url)).decode(), flush=True)
        await ended.wait()


def _end_with(pipe: int, ended: asyncio.Event) -> None:
    if not os.read(pipe, 4096):
        asyncio.get_running_loop().remove_reader(pipe)
        ended.set()


def main() -> None:
    spec, options = parse(sys.argv[1:])
    try:
        uvloop.run(run(spec, options))
    except OSError as error:
        sys.exit(f"stub node: cannot listen on {options.host}: {error}; choose another --port or 0")


if __name__ == "__main__":
    main()
