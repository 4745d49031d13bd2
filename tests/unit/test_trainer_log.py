"""The trainer's log: any split of its bytes, any line; the stall; the names of models."""

import json

from hypothesis import given
from hypothesis import strategies as st

from training.job import new_job
from training.trainer import trainer_log
from training.trainer.naming import alias_of, name_of, safe, version_of
from training.trainer.stall import felt, is_stalled

LINES = st.lists(
    st.fixed_dictionaries({"current_steps": st.integers(1, 10**6), "loss": st.floats(0, 100)}), max_size=20
)


@given(LINES, st.data())
def test_any_split_of_the_bytes_yields_the_same_lines(
    lines: list[dict[str, float]], data: st.DataObject
) -> None:
    """A line that has come in part is no line yet, and none is lost or told twice."""
    content = "".join(json.dumps(line) + "\n" for line in lines).encode() + b'{"current_st'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=10)))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]

    read, rest = [], b""
    for piece in pieces:
        whole, rest = trainer_log.split(rest, piece)
        read.extend(whole)

    assert [json.loads(line) for line in read] == lines
    assert rest == b'{"current_st'


@given(st.binary(max_size=200))
def test_no_line_breaks_the_reader(line: bytes) -> None:
    """Whatever stands there: numbers with a step, or nothing."""
    numbers = trainer_log.metrics(line)
    assert numbers is None or "step" in numbers


def test_a_line_in_our_words() -> None:
    """LLaMA-Factory's names on the left of the documentation, OpenAI's here."""
    line = (
        b'{"current_steps": 5, "total_steps": 60, "loss": 1.5, "lr": 9e-05, "epoch": 0.1, "percentage": 8.3}'
    )
    expected = {"step": 5, "total_steps": 60, "train_loss": 1.5, "learning_rate": 9e-05, "epoch": 0.1}
    assert expected == trainer_log.metrics(line)
    assert trainer_log.metrics(b'{"current_steps": 5, "loss": NaN}') == {"step": 5, "diverged": 1}


@given(st.integers(1, 10**6))
def test_a_long_run_is_told_in_a_bounded_number_of_lines(total: int) -> None:
    """The last step among them."""
    told, last = 0, 0.0
    for step in {*range(1, total + 1, max(1, total // 3000)), total}:
        numbers = {"step": float(step), "total_steps": float(total), "train_loss": 1.0}
        if trainer_log.is_worth_telling(numbers, last):
            told, last = told + 1, float(step)
    assert told <= trainer_log.MOST_METRICS_TOLD + 1


def test_the_number_of_examples_is_that_of_training() -> None:
    """An evaluation says one too."""
    evaluation = "***** Running Evaluation *****\n  Num examples = 12\n"
    training = "x >> ***** Running training *****\n[INFO] >>   Num examples = 1,080\n  Num Epochs = 2"
    assert trainer_log.examples(evaluation) is None
    assert trainer_log.examples(evaluation + training) == 1080
    assert trainer_log.examples(training + evaluation) == 1080


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=30))
def test_only_silence_without_work_is_a_stall(looks: list[tuple[int, int]]) -> None:
    """Anything written, or enough of the processor's time, counts as life."""
    pulse, log, cpu, quiet_since = felt(None, log_bytes=0, cpu_ticks=0, now=0.0), 0, 0, 0.0
    used = 0
    for now, (written, ticks) in enumerate(looks, 1):
        log, cpu, used = log + written, cpu + ticks, used + ticks
        if written or used >= 5:
            quiet_since, used = float(now), 0
        pulse = felt(pulse, log_bytes=log, cpu_ticks=cpu, now=float(now))
        assert is_stalled(pulse, now=float(now), after_s=3) == (now - quiet_since >= 3)


@given(st.text(max_size=100), st.integers(1, 10**6))
def test_an_alias_is_one_part_of_a_path_and_its_versions_are_read_back(suffix: str, version: int) -> None:
    """`--` stands in a name once."""
    job = new_job(job_id="j", tenant="t", model="org/Model-1.5", recipe="r", now=0.0)
    alias = safe(suffix) or alias_of(job)
    assert "--" not in alias
    assert "/" not in alias
    assert version_of(name_of(alias, version), alias) == version
    assert version_of(name_of(alias, version), alias + "x") is None
    assert alias_of(job) == "Model-1.5"
