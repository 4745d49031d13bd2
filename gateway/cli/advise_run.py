"""From the options of `friendo advise` to its question, its source, its node, and what it writes."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway.advise.asking import NodeAsked, node_asked
from gateway.advise.counting import TokenCounter
from gateway.advise.figures import figures
from gateway.advise.generator import People
from gateway.advise.page import page
from gateway.advise.pricing import Effort, priced
from gateway.advise.question import Findings, NodeFacts, Question
from gateway.advise.run import Node, findings
from gateway.advise.source import Source
from gateway.advise.state import State
from gateway.advise.words import Words
from gateway.cli.advise_screen import bar, show
from gateway.cli.advise_sources import FromFile, FromStore, MadeUp
from gateway.cli.conversation_store import opened
from gateway.cli.serve_settings import node_of
from gateway.cli.settings_file import read_settings
from gateway.config_file import masked_text
from gateway.errors import BadOption
from gateway.nodes.acquaintance import meet
from gateway.nodes.asking import Asker
from gateway.routing import node as routing_node

_MOST_ANSWER = 128
"""Tokens of an answer while r0 is measured."""


class Options(msgspec.Struct, frozen=True):
    """The command line as it was given."""

    file: Path | None
    generate: int | None
    gap_median: float
    seed: int
    tenant: str
    redis: str | None
    node: str | None
    model: str
    api_key_env: str
    quality: bool
    quality_replies: int
    tolerance: float
    min_turns: int | None
    most_turns: int
    r0: float | None
    p_cold: float | None
    retention_s: float
    cache_tokens: int
    summary_tokens: int | None
    output_price: float
    block: int | None
    limit: int
    state: Path | None


class Outputs(msgspec.Struct, frozen=True):
    """Where the answer goes, beside the terminal."""

    html: Path
    json: Path | None


async def answered(options: Options, outputs: Outputs) -> None:
    """Answer, and write it down. Raises what `reported` tells."""
    _check(options, outputs)
    question = _question(options, os.environ)
    with bar() as watcher:
        async with _node(options, os.environ) as node:
            counter = await _counter(node)
            async with _source(options, counter) as source:
                state = State(options.state, f"{source.identity} {options.seed}")
                found = await findings(question, source, state, watcher, node)
    words = Words()
    show(found, words)
    written = [_written(outputs.html, page(found, words).encode())]
    if outputs.json is not None:
        written.append(_written(outputs.json, _json(found, words)))
    print(f"\n{', '.join(written)} written", file=sys.stderr)


def _check(options: Options, outputs: Outputs) -> None:
    if options.file is not None and options.generate is not None:
        raise BadOption("name either --file or --generate, not both")
    if (options.node is None) is not (options.model == ""):
        raise BadOption("--node and --model go together: which model on which node?")
    for path in (outputs.html, outputs.json, options.state):
        if path is not None and not path.absolute().parent.is_dir():
            raise BadOption(f"the folder of {path} does not exist")


def _question(options: Options, env: Mapping[str, str]) -> Question:
    settings = read_settings(None, env)
    rules = settings.history.rules
    return Question(
        window=rules.window,
        recall=rules.recall,
        most_summary=rules.compaction.max_tokens,
        min_turns=options.min_turns,
        most_turns=options.most_turns,
        r0=options.r0,
        p_cold=options.p_cold,
        retention_s=options.retention_s,
        cache_tokens=options.cache_tokens,
        summary_tokens=options.summary_tokens,
        output_price=options.output_price,
        block=options.block,
        limit=options.limit,
        seed=options.seed,
        quality=options.quality,
        quality_replies=options.quality_replies,
        tolerance=options.tolerance,
    )


@asynccontextmanager
async def _source(options: Options, counter: TokenCounter | None) -> AsyncIterator[Source]:
    if options.generate is not None:
        yield MadeUp(People(dialogues=options.generate, gap_median=options.gap_median), options.seed)
    elif options.file is not None:
        yield FromFile(options.file, counter)
    else:
        async with opened(options.redis) as place:
            where = masked_text(place.settings.store.url)
            yield FromStore(place.store, options.tenant, where, counter)


@asynccontextmanager
async def _node(options: Options, env: Mapping[str, str]) -> AsyncIterator[Node | None]:
    if options.node is None:
        yield None
        return
    key = ""
    if options.api_key_env:
        key = env.get(options.api_key_env, "")
        if not key:
            raise BadOption(f"--api-key-env: {options.api_key_env} is not set")
    spec = node_of(options.node, options.model, key)
    async with node_asked(spec.engine, spec.url, options.model, key) as asked:

        async def facts(answer_tokens: int) -> NodeFacts:
            return await _facts(spec, asked, options.seed, answer_tokens)

        yield Node(asked=asked, facts=facts)


async def _facts(spec: routing_node.NodeSpec, asked: NodeAsked, seed: int, answer_tokens: int) -> NodeFacts:
    asker = Asker(spec)
    try:
        told = await meet(asker, routing_node.Node(spec, spec.name))
    finally:
        asker.close()
    effort = Effort(answer_tokens=max(1, min(_MOST_ANSWER, answer_tokens)))
    return NodeFacts(
        product=told.product,
        version=told.version,
        block=told.block_size,
        kv_tokens=told.kv_tokens,
        prices=await priced(asked, seed=seed, effort=effort),
    )


async def _counter(node: Node | None) -> TokenCounter | None:
    if node is None:
        return None
    counter = TokenCounter(node.asked)
    try:
        await counter.start()
    except BadOption as fault:
        print(f"tokens are estimated: {fault}", file=sys.stderr)
        return None
    return counter


def _json(found: Findings, words: Words) -> bytes:
    return msgspec.json.format(msgspec.json.encode(figures(found, words)), indent=2) + b"\n"


def _written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)
