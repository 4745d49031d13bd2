"""Where funboost finds its Redis: read from the environment that the worker sets around the import.

funboost takes no arguments for this; it looks for a top-level module of this name and, finding none, writes
one into the project.
"""

import logging
import os
from typing import Any
from urllib.parse import unquote, urlsplit

_ADDRESS = urlsplit(os.environ["FRIENDO_FUNBOOST_REDIS"])


class _Settings:
    """The part of funboost's own settings class that it calls on what it finds here."""

    def get_dict(self) -> dict[str, Any]:
        """The settings by name."""
        return {name: value for name, value in vars(type(self)).items() if name.isupper()}


class BrokerConnConfig(_Settings):
    """The queue's Redis; every other broker keeps its default, since none of them is used."""

    REDIS_HOST = _ADDRESS.hostname
    REDIS_PORT = _ADDRESS.port
    REDIS_USERNAME = unquote(_ADDRESS.username or "")
    REDIS_PASSWORD = unquote(_ADDRESS.password or "")
    REDIS_SSL = _ADDRESS.scheme == "rediss"
    REDIS_DB = int(_ADDRESS.path.lstrip("/"))
    REDIS_DB_FILTER_AND_RPC_RESULT = REDIS_DB
    REDIS_URL = os.environ["FRIENDO_FUNBOOST_REDIS"]


class FunboostCommonConfig(_Settings):
    """No banner, no hints, and times in UTC."""

    TIMEZONE = "UTC"
    SHOW_HOW_FUNBOOST_CONFIG_SETTINGS = False
    NB_LOG_FORMATER_INDEX_FOR_CONSUMER_AND_PUBLISHER = logging.Formatter("%(message)s")
    FUNBOOST_PROMPT_LOG_LEVEL = logging.CRITICAL
    KEEPALIVETIMETHREAD_LOG_LEVEL = logging.WARNING
