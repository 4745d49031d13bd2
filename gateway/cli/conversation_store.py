"""The store of dialogues as a command opens it: by the settings of `friendo serve`, archive included."""

import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from gateway.app import conversation_archive, conversation_store
from gateway.cli.settings_file import checked, read_settings
from gateway.config_file.forms import store_address
from gateway.errors import BadOption
from gateway.settings import Settings
from history.archived_store import with_archive
from history.dialogue import Dialogues
from history.editing import Editor
from history.errors import StoreFault
from history.lease_keeper import LeaseKeeper
from history.ports import Archive, ConversationStore


@dataclass(frozen=True, slots=True)
class Opened:
    """The store, and what writes to it."""

    settings: Settings
    store: ConversationStore
    archive: Archive | None
    editor: Editor


@asynccontextmanager
async def opened(redis: str | None) -> AsyncIterator[Opened]:
    """The settings' store, or the one at this address; closed at the end. Raises `BadOption`."""
    if redis is not None:
        checked("--redis", store_address, redis)
    overrides = [] if redis is None else [f"store.url={redis}"]
    settings = read_settings(None, os.environ, overrides)
    if settings.store.url == "memory":
        raise BadOption("conversations in a gateway's memory cannot be reached; name a Redis with --redis")
    store = conversation_store(settings)
    archive: Archive | None = None
    try:
        if settings.archive.url:
            archive = conversation_archive(settings)
            store = with_archive(store, archive)
        yield Opened(settings, store, archive, _editor(store, settings))
    finally:
        if settings.history.limits.counts_tenants:
            with suppress(StoreFault):  # the next sweep counts what is not told now
                await store.usage(())
        await store.close()


def _editor(store: ConversationStore, settings: Settings) -> Editor:
    rules = settings.history.rules
    dialogues = Dialogues(store, LeaseKeeper(store, clock=time.time), rules, time.time)
    return Editor(dialogues, store, rules, time.time, lambda: f"command-{secrets.token_hex(8)}")
