"""Why a run failed, from the ends of logs as LLaMA-Factory and torchrun write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.trainer.cause import cause

SITE = "/opt/llamafactory/lib/python3.11/site-packages"

TORCHRUN = f"""
[rank1]: Traceback (most recent call last):
[rank1]:   File "{SITE}/llamafactory/launcher.py", line 185, in <module>
[rank1]:     run_exp()
[rank1]:   File "{SITE}/torch/nn/modules/module.py", line 1751, in _wrapped_call_impl
[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity
W1124 10:00:01.123 torch/distributed/elastic/multiprocessing/api.py:897] Sending process 4712 closing SIGTERM
Traceback (most recent call last):
  File "{SITE}/torch/distributed/launcher/api.py", line 277, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
{SITE}/llamafactory/launcher.py FAILED
------------------------------------------------------------
Traceback (most recent call last):
  File "/opt/llamafactory/bin/llamafactory-cli", line 7, in <module>
    sys.exit(main())
subprocess.CalledProcessError: Command '['torchrun', '--nnodes', '1']' returned non-zero exit status 1.
"""

DATASET = f"""
Traceback (most recent call last):
  File "{SITE}/datasets/packaged_modules/json/json.py", line 153, in _generate_tables
    df = pandas_read_json(f)
UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 20: invalid start byte

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "{SITE}/datasets/builder.py", line 1858, in _prepare_split_single
    raise DatasetGenerationError("An error occurred while generating the dataset") from e
datasets.exceptions.DatasetGenerationError: An error occurred while generating the dataset
"""

KEYS = f"""
  File "{SITE}/transformers/hf_argparser.py", line 398, in parse_dict
ValueError: Some keys are not used by the HfArgumentParser: ['evaluation_strategy']
"""

QUOTING = f"""
Traceback (most recent call last):
  File "{SITE}/llamafactory/data/converter.py", line 90, in __call__
    raise RuntimeError("...")
RuntimeError: my secret: I told Anna that I love her
"""


@pytest.mark.parametrize(
    ("log", "code", "told"),
    [
        (TORCHRUN, "gpu_memory", "lower batch_size"),
        (DATASET, "bad_dataset", "could not read the dataset"),
        (KEYS, "bad_recipe", "evaluation_strategy"),
        (QUOTING, "trainer_failed", "RuntimeError, llamafactory/data/converter.py line 90"),
        ("ValueError: Template nosuch does not exist.", "bad_recipe", "nosuch"),
        ("OSError: [Errno 28] No space left on device", "disk_full", "make room"),
        ("Signal 9 (SIGKILL) received by PID 77", "trainer_killed", "SIGKILL"),
        ("Welcome", "trainer_failed", "exit code 1"),
    ],
)
def test_the_cause_is_found_above_what_the_launchers_say(log: str, code: str, told: str) -> None:
    """By kind, with what to do."""
    found = cause(log, 1)

    assert (code, True) == (found.code, told in found.message), found


def test_what_an_exception_quotes_is_not_told() -> None:
    """A dialogue may stand in it."""
    assert "Anna" not in cause(QUOTING, 1).message
    assert "secret" not in cause(QUOTING, 1).message


@given(st.text(max_size=300), st.integers(-20, 200))
def test_any_log_has_some_cause(log: str, code: int) -> None:
    """Bounded, and never an exception."""
    found = cause(log, code)
    assert found.code
    assert 0 < len(found.message) < 1000
