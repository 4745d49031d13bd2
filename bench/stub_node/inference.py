"""Chat and text completions: from the body to the last byte of the answer."""

import time
from array import array
from dataclasses import dataclass

from bench.stub_node import answers, tokens, wire
from bench.stub_node.answers import Answer, Limits
from bench.stub_node.cache import chain_seed
from bench.stub_node.dialects.shapes import Asked, Dialect, Ending, Head, Json, Served, Usage
from bench.stub_node.engine import Run, Work
from bench.stub_node.events import Events, around_mark, mark, quoted, send_whole
from bench.stub_node.faults import Fault
from bench.stub_node.http1 import Connection, Request
from bench.stub_node.node import Node
from bench.stub_node.refusal import Refusal, Refused
from bench.stub_node.template import templated
from bench.stub_node.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Job:
    """One request, decided: what is to be generated and how it is told."""

    work: Work
    answer: Answer
    head: Head
    chat: bool
    stream: bool
    include_usage: bool


async def chat(node: Node, request: Request, connection: Connection, fault: Fault | None) -> None:
    """POST /v1/chat/completions."""
    body = wire.decode(request.body, wire.ChatRequest)
    if not body.messages:
        message = "Cannot apply chat template to an empty conversation. Provide at least one message."
        raise Refused(Refusal(400, "bad_request", message))
    served = _served(node, body)
    tools = body.tools or []
    prompt = tokens.prompt(
        templated(node, body.messages), tools=[wire.encode(tool).decode() for tool in tools]
    )
    asked_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    limits = _limits(node, body, prompt, asked_tokens)
    answer = answers.answer(
        body.messages, limits=limits, tools=tools, choice=body.tool_choice, seed=body.seed
    )
    await _serve(node, _job(node, request, body, served, prompt, answer), connection, fault)


async def text(node: Node, request: Request, connection: Connection, fault: Fault | None) -> None:
    """POST /v1/completions, for one prompt: a text or token ids."""
    body = wire.decode(request.body, wire.TextRequest)
    served = _served(node, body)
    prompt, spoken = _text_prompt(body.prompt)
    limits = _limits(node, body, prompt, 16 if body.max_tokens is None else body.max_tokens)
    answer = answers.sentence(answers.draw(spoken, body.seed), limits=limits)
    await _serve(node, _job(node, request, body, served, prompt, answer), connection, fault)


def _text_prompt(prompt: str | list[str | int]) -> tuple[Tokens, str]:
    if isinstance(prompt, str):
        return tokens.encode(prompt), prompt
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return tokens.encode(prompt[0]), prompt[0]
    ids = [token for token in prompt if isinstance(token, int) and 0 <= token < 2**32]
    if not ids or len(ids) != len(prompt):
        raise Refused(Refusal(400, "bad_request", "prompt must be one text or one list of token ids"))
    return array("I", ids), ",".join(map(str, ids))


def _served(node: Node, body: wire.Generation) -> Served:
    if body.n not in (None, 1):
        raise Refused(Refusal(400, "bad_request", "the stub node answers with one choice: n must be 1"))
    if body.priority and node.spec.engine == "vllm" and not node.spec.has("priority"):
        message = f"Got priority {body.priority} but Priority scheduling is not enabled."
        raise Refused(Refusal(400, "bad_request", message))
    asked = Asked(model=body.model, lora_path=body.lora_path)
    return node.dialect.choose(asked, base=node.spec.model, adapters=node.adapters)


def _limits(node: Node, body: wire.Generation, prompt: Tokens, max_tokens: int | None) -> Limits:
    if max_tokens is not None and max_tokens < 1:
        message = (
            f"max_tokens must be at least 1, got {max_tokens}. (parameter=max_tokens, value={max_tokens})"
        )
        raise Refused(Refusal(400, "bad_request", message, param="max_tokens"))
    if not prompt:
        raise Refused(Refusal(400, "bad_request", "the prompt is empty"))
    limit = node.spec.context_length
    node.dialect.check_length(len(prompt), max_tokens, limit=limit)
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Limits(max_tokens, room=limit - len(prompt), usual=node.spec.answer_tokens, stops=stops)


def _job(
    node: Node, request: Request, body: wire.Generation, served: Served, prompt: Tokens, answer: Answer
) -> Job:
    is_chat = isinstance(body, wire.ChatRequest)
    stream = bool(body.stream)
    seed = chain_seed(body.cache_salt or "", body.extra_key or "", *served.cache_key)
    kind = ("chat.completion.chunk" if stream else "chat.completion") if is_chat else "text_completion"
    return Job(
        work=node.engine.work(prompt, answer.ids, seed=seed, finish=answer.finish),
        answer=answer,
        head=Head(
            id=node.dialect.answer_id(request.headers, chat=is_chat),
            object=kind,
            created=int(time.time()),
            model=served.name,
        ),
        chat=is_chat,
        stream=stream,
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )


async def _serve(node: Node, job: Job, connection: Connection, fault: Fault | None) -> None:
    if job.stream:
        await _serve_stream(node, job, Events(connection, fault))
        return
    async with node.engine.run(job.work) as run:
        await run.rest()
        usage = _usage(node, run)
    tell = node.dialect.chat_answer if job.chat else node.dialect.text_answer
    await send_whole(connection, wire.encode(tell(job.head, job.answer, usage)), fault)


async def _serve_stream(node: Node, job: Job, events: Events) -> None:
    dialect = node.dialect
    if not dialect.ERROR_INSIDE_STREAM:
        node.engine.refuse_when_full()
    if dialect.HEADERS_BEFORE_PREFILL:
        events.open()
    try:
        async with node.engine.run(job.work) as run:
            events.open()
            if job.chat:
                await events.send(dialect.role_chunk(job.head))
            await _send_tokens(dialect, job, events, run)
            usage = _usage(node, run)
    except Refused as refused:
        if not dialect.ERROR_INSIDE_STREAM:
            raise
        await events.send(dialect.stream_error(refused.refusal))
        await events.close()
        return
    if job.include_usage:
        await events.send(dialect.usage_chunk(job.head, usage))
    await events.close()


async def _send_tokens(dialect: Dialect, job: Job, events: Events, run: Run) -> None:
    """One event per token that has something to show, and the finish, alone or with the last token."""
    answer, call = job.answer, job.answer.call
    before, after = around_mark(_chunk(dialect, job, mark()))
    ending = Ending(answer.finish, answer.stop)
    ends_itself = len(answer.ids) > len(answer.pieces)
    merged = dialect.FINISH_WITH_LAST_TOKEN and not ends_itself and call is None
    last = len(answer.ids) - 1
    for place in range(len(answer.ids)):
        await run.next_token()
        piece = answer.pieces[place] if place < len(answer.pieces) else ""
        if merged and place == last:
            await events.send(_chunk(dialect, job, piece, ending))
        elif call is not None and place == call.first:
            await events.send(dialect.chat_chunk(job.head, dialect.call_delta(call.id, call.name)))
            await events.send_bytes(before + quoted(piece) + after)
        elif piece and (call is None or call.first < place < call.last):
            await events.send_bytes(before + quoted(piece) + after)
    if not merged:
        await events.send(_finish_chunk(dialect, job, ending))


def _chunk(dialect: Dialect, job: Job, piece: str, ending: Ending | None = None) -> Json:
    if not job.chat:
        return dialect.text_chunk(job.head, piece, ending)
    delta = dialect.arguments_delta(piece) if job.answer.call else {"content": piece}
    return dialect.chat_chunk(job.head, delta, ending)


def _finish_chunk(dialect: Dialect, job: Job, ending: Ending) -> Json:
    if job.chat:
        return dialect.chat_chunk(job.head, {}, ending)
    return dialect.text_chunk(job.head, "", ending)


def _usage(node: Node, run: Run) -> Usage:
    size = node.engine.cache.block_size
    prompt = len(run.work.prompt)
    return Usage(
        prompt=prompt,
        cached=run.cached_tokens if node.spec.has("cache_report") else None,
        created=prompt // size * size - run.cached_tokens,
        completion=run.produced,
    )
