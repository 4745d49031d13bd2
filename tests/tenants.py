"""A gateway that asks for keys, and keys of tenants for it, made as an administrator makes them."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx

from tests.conftest import Valkey
from tests.gateway_process import Gateway, running_gateway, until

PEPPER = "p" * 32


@contextlib.contextmanager
def guarded_gateway(*nodes: str, valkey: Valkey, options: tuple[str, ...] = ()) -> Iterator[Gateway]:
    """One over a store of its own."""
    options, env = ("--redis", valkey.url, *options), {"FRIENDO_KEY_PEPPER": PEPPER}
    with running_gateway(*nodes, options=options, env=env, auth=True) as process:
        yield process


def key_of(gateway: Gateway, valkey: Valkey, tenant: str, *scopes: str) -> str:
    """A new key that the gateway knows."""
    wanted = [part for scope in scopes for part in ("--scope", scope)]
    command = [sys.executable, "-m", "gateway", "keys", "create", "--tenant", tenant, "--name", "test"]
    env = {**os.environ, "FRIENDO_KEY_PEPPER": PEPPER}
    ran = subprocess.run(
        [*command, *wanted, "--redis", valkey.url], env=env, capture_output=True, text=True, check=True
    )
    made = ran.stdout.strip()
    headers = {"authorization": f"Bearer {made}"}
    url = f"{gateway.admin_url}/admin/nodes"
    assert until(lambda: httpx.get(url, headers=headers, trust_env=False).status_code != 401)
    return made
