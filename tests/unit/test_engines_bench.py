"""What starts real engines and accounts for them, as far as it can be told without one."""

import json
import random
import re
import struct
from pathlib import Path

import pytest

from bench.engines.__main__ import phases
from bench.engines.account import accounts, drift, is_cut, share_found
from bench.engines.launch import Ports, SglangTraits, VllmTraits, sglang, vllm
from bench.engines.lora import weights
from bench.engines.places import EngineMissingError, Places, places
from bench.engines.recorder import Call
from locks.cpu_environment import locked
from locks.install_engines import ENVIRONMENTS

PORTS = Ports(http=1, events=2, replay=3)
END = 2


def call(at: float, prompt: list[int], answer: list[int], *, node: str = "a", cached: int = 0) -> Call:
    """One that took a second."""
    return Call(node, {}, at, at + 1, tuple(prompt), tuple(answer), cached)


def installed(folder: Path) -> Places:
    """Everything is there."""
    for name in ("vllm", "sglang", "config.json"):
        (folder / name).write_text("{}")
    return Places({"vllm": folder / "vllm", "sglang": folder / "sglang"}, folder)


def test_reusable_is_what_whole_blocks_of_earlier_requests_give() -> None:
    """On whichever node; not the last token of an answer, nor of the prompt, nor what is still computed."""
    first = call(0, list(range(10, 30)), [1, 2, 3, 4, 5])
    follow = call(2, [*range(10, 30), 1, 2, 3, 4, 5, 6], [7], node="b", cached=8)
    same = call(2.5, [*range(10, 30), 1, 2, 3, 4, 5, 6], [7], cached=24)
    again = call(4, list(range(10, 26)), [7], cached=8)
    rows = accounts([again, same, follow, first], block=8)

    assert [0, 24, 24, 8] == [row.reusable for row in rows]
    assert [0, 0, 24, 8] == [row.same_node for row in rows]
    assert (8 + 24 + 8) / 56 == share_found(rows)


def test_a_cut_is_told_from_a_dropped_tail_and_from_drift() -> None:
    """By where the prompt begins to differ from the one before."""
    persona, said = [50, 51, END, 9], [60, 61, 62, END, 9, 8, 8, 8]
    before = call(0, [*persona, 70, 71, END, 9, *said], [80, 81, END])
    whole = (*before.prompt, *before.answer)
    follows = call(2, [*whole, 9, *said], [1])
    tail_gone = call(2, [*persona, 70, 71, END, 9, 60, END, 9, 80, 81, END, 9, *said], [1])
    cut = call(2, [*persona, *said, 80, 81, END, 9, *said], [1])
    drifted = call(2, [*before.prompt, 80, 99, END, 9, *said], [1])

    assert [False, False, True, False] == [is_cut(before, one) for one in (follows, tail_gone, cut, drifted)]
    assert [0, 0, 0, 2] == [drift(before, one) for one in (follows, tail_gone, cut, drifted)]


def test_an_adapter_is_a_safetensors_file_of_the_models_shape() -> None:
    """The same bytes for the same seed; every tensor's place is as long as its shape says."""
    shape = {"hidden_size": 16, "head_dim": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape["num_hidden_layers"] = 3
    file = weights(shape, random.Random(1))
    length = struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8 : 8 + length])
    tensors = [one for name, one in header.items() if name != "__metadata__"]

    assert file == weights(shape, random.Random(1)) != weights(shape, random.Random(2))
    assert 0 == length % 8
    assert 3 * 2 * 2 == len(tensors)
    for tensor in tensors:
        begin, end = tensor["data_offsets"]
        assert 2 * tensor["shape"][0] * tensor["shape"][1] == end - begin
    assert len(file) == 8 + length + max(tensor["data_offsets"][1] for tensor in tensors)


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path) -> None:
    """Neither an environment nor the model is looked for anywhere else."""
    found = places({"XDG_CACHE_HOME": str(tmp_path)}, Path("/nowhere"))
    with pytest.raises(EngineMissingError, match="make engines-install"):
        found.python("vllm")
    with pytest.raises(EngineMissingError, match="make engines-install"):
        found.model_folder()
    with pytest.raises(EngineMissingError, match="cpu or gpu"):
        places({"FRIENDO_ENGINES_DEVICE": "tpu"}, tmp_path)


def test_engines_on_a_gpu_are_the_users_own(tmp_path: Path) -> None:
    """Named by the environment; nothing that only a CPU needs is in their command."""
    env = {"FRIENDO_ENGINES_DEVICE": "gpu", "FRIENDO_VLLM_PYTHON": "/opt/v", "FRIENDO_ENGINES_MODEL": "/m"}
    found = places(env, tmp_path)
    assert (Path("/opt/v"), Path("/m"), True) == (found.pythons["vllm"], found.model, found.on_gpu)

    there = installed(tmp_path)
    gpu = Places(there.pythons, there.model, on_gpu=True)
    for on, has in ((there, True), (gpu, False)):
        assert has is ("cpu" in sglang(SglangTraits(), PORTS, on).command)
        assert has is ("PYTHONPATH" in sglang(SglangTraits(), PORTS, on).environment)
        assert has is ("VLLM_CPU_KVCACHE_SPACE" in vllm(VllmTraits(), PORTS, on).environment)


def test_traits_are_what_an_engine_is_told(tmp_path: Path) -> None:
    """Blocks, adapters, ranks, and a queue's length."""
    there = installed(tmp_path)
    one = vllm(VllmTraits(kv_tokens=1000, block_size=32, lora=True, is_dev=True), PORTS, there)
    other = sglang(SglangTraits(ranks=2, most_queued=1), PORTS, there)

    assert "31" == one.command[one.command.index("--num-gpu-blocks-override") + 1]
    assert {"VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_SERVER_DEV_MODE"} <= set(one.environment)
    assert "1" == other.command[other.command.index("--max-queued-requests") + 1]
    assert "0|1" == other.environment["SGLANG_CPU_OMP_THREADS_BIND"]
    assert "--enable-lora" not in other.command


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_locks_have_hashes_and_no_torch(engine: str) -> None:
    """PyTorch comes from torch-cpu.txt; nothing of CUDA's is a package of its own."""
    text = ENVIRONMENTS[engine].lock.read_text()
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    names = {package.split("==")[0] for package in packages}

    assert locked(text) == len(packages) > 100
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []
    assert {name for name in names if re.match(r"torch$|torchaudio$|nvidia|cuda", name)} == set()


def test_each_engine_is_a_phase_after_the_installation() -> None:
    """And pytest gets what was asked for."""
    assert ["install", "vllm", "sglang"] == [one.name for one in phases(("vllm", "sglang"), ())]
    installs = ["install", "install llamafactory"]
    assert [*installs, "llamafactory"] == [one.name for one in phases(("llamafactory",), ())]
    assert ("-k", "sglang", "-x") == phases(("sglang",), ("-x",))[1].command[-3:]
