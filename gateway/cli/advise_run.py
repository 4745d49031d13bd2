"""From the options of `friendo advise` to its question, its source, its node, and what it writes."""

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from difflib import get_close_matches
from pathlib import Path

import msgspec

from gateway.advise.asking import NodeAsked, node_asked
from gateway.advise.counting import TokenCounter
from gateway.advise.figures import figures
from gateway.advise.generator import People
from gateway.advise.page import page
from gateway.advise.pricing import Effort, priced
from gateway.advise.question import Assumed, Findings, NodeFacts, Question
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

    file: Path | None = None
    generate: int | None = None
    seed: int = 0
    tenant: str = "default"
    redis: str | None = None
    node: str | None = None
    model: str = ""
    api_key_env: str = ""
    quality: bool = False
    min_turns: int | None = None
    limit: int = 200_000
    assume: list[str] | None = None
    state: Path | None = None


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
            async with _source(options, question.assumed, counter) as source:
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
    rules = read_settings(None, env).history.rules
    return Question(
        window=rules.window.rule(),
        recall=rules.recall,
        most_summary=rules.compaction.max_tokens,
        min_turns=options.min_turns,
        limit=options.limit,
        seed=options.seed,
        quality=options.quality,
        assumed=assumed(options.assume or ()),
    )


def assumed(texts: Sequence[str]) -> Assumed:
    """What `--assume NAME=VALUE` says. Raises `BadOption`, with the nearest name for one that is none."""
    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise BadOption(f"--assume takes NAME=VALUE, for example r0=0.05, not {text!r}")
        if name not in Assumed.__struct_fields__:
            near = get_close_matches(name, Assumed.__struct_fields__, n=1, cutoff=0.0)[0]
            known = ", ".join(Assumed.__struct_fields__)
            raise BadOption(
                f"--assume: {name!r} is nothing to assume; do you mean {near!r}? There are {known}"
            )
        values[name] = value
    try:
        return msgspec.convert(values, Assumed, strict=False)
    except msgspec.ValidationError as error:
        raise BadOption(f"--assume: {error}") from error


@asynccontextmanager
async def _source(options: Options, known: Assumed, counter: TokenCounter | None) -> AsyncIterator[Source]:
    if options.generate is not None:
        people = People(
            dialogues=options.generate, gap_median=known.gap_median, away_median=known.away_median
        )
        yield MadeUp(people, options.seed)
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
        await asked.check()

        async def facts(answer_tokens: int) -> NodeFacts:
            return await _facts(spec, asked, options.seed, answer_tokens)

        yield Node(asked=asked, facts=facts)


async def _facts(spec: routing_node.NodeSpec, asked: NodeAsked, seed: int, answer_tokens: int) -> NodeFacts:
    asker = Asker(spec)
    try:
        told = await meet(asker, routing_node.Node(spec, spec.name))
    finally:
        asker.close()
    found = NodeFacts(
        product=told.product,
        version=told.version,
        block=told.block_size,
        kv_tokens=told.kv_tokens,
        prices=None,
    )
    effort = Effort(answer_tokens=max(1, min(_MOST_ANSWER, answer_tokens)))
    try:
        return msgspec.structs.replace(found, prices=await priced(asked, seed=seed, effort=effort))
    except BadOption as fault:  # what was heard and scored before is worth more than a price
        return msgspec.structs.replace(found, unpriced=str(fault))


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
