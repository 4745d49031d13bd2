"""A version on real engines: loaded by its rollout, answering behind the alias, and taken back."""

from pathlib import Path

import httpx

from bench.engines.launch import MODEL_NAME
from bench.engines.node import EngineNode
from tests.engines.asking import ask
from tests.gateway_process import Gateway, running_gateway, until
from tests.rollout_desk import desk, say

ALIAS, VERSION = "luna", "luna--v1"
QUESTION = "Tell me about boats."
LOADED_WITHIN_S = 120.0
WARMED_WITHIN_S = 60.0


def warmed(gateway: Gateway) -> int:
    """Prefixes that the gateway has had computed for dialogues whose version changed, and others."""
    told = httpx.get(f"{gateway.admin_url}/admin/cache", trust_env=False).raise_for_status().json()
    return int(told["background"].get("warm", {}).get("answers", 0))


def test_a_real_adapter_is_rolled_out_and_taken_back(
    pair: tuple[EngineNode, ...], adapters: dict[str, Path]
) -> None:
    """The alias has the adapter's voice on both nodes, then the base's again, with its prefix warm."""
    long = f"{QUESTION} " + "The harbour is full of boats today. " * 20
    with running_gateway(*(f"{one.engine}={one.url}" for one in pair)) as gateway, desk(gateway) as admin:
        base = ask(gateway.url, QUESTION, max_tokens=16)
        started = admin.start(ALIAS, "v1", str(adapters["warm"]), base=MODEL_NAME, steps=[1.0])
        assert "waiting_for_approval" == started.raise_for_status().json()["state"]
        assert 404 == ask(gateway.url, QUESTION, model=VERSION).status
        admin.do("approve", ALIAS).raise_for_status()
        assert until(lambda: admin.state(ALIAS) == "sharing", within_s=LOADED_WITHIN_S), admin.shown(ALIAS)
        assert until(
            lambda: all(VERSION in has for has in admin.versions(ALIAS).values()), within_s=LOADED_WITHIN_S
        ), admin.shown(ALIAS)

        first = say(gateway, ALIAS, "a dialogue", QUESTION, max_tokens=16, temperature=0)
        assert (200, ALIAS, VERSION) == (first.status, first.model, first.version)
        assert base.text != first.text
        for node in pair:
            straight = VERSION if node.engine == "vllm" else f"{MODEL_NAME}:{VERSION}"
            assert first.text == ask(node.url, QUESTION, model=straight, max_tokens=16).text
        assert VERSION == say(gateway, ALIAS, "a dialogue", long).version
        again = say(gateway, ALIAS, "a dialogue", "And?")
        assert again.cached > 0.5 * again.prompt

        before = warmed(gateway)
        admin.do("back", ALIAS, "a test").raise_for_status()
        assert until(lambda: admin.state(ALIAS) == "settled")
        assert until(lambda: warmed(gateway) > before, within_s=WARMED_WITHIN_S)
        back = say(gateway, ALIAS, "a dialogue", "And now?")
        assert (200, MODEL_NAME) == (back.status, back.version)
        assert back.cached > 0.5 * back.prompt
        fresh = say(gateway, ALIAS, "another dialogue", QUESTION, max_tokens=16, temperature=0)
        assert MODEL_NAME == fresh.version
        assert fresh.text != first.text
        assert 0 == admin.report(ALIAS)["versions"][VERSION]["errors"]
