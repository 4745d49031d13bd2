"""The job's state machine: nothing but the table, for any sequence of changes."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from training.errors import IllegalTransition, InvalidJob
from training.job import (
    MAX_MESSAGE_CHARS,
    TERMINAL,
    TRANSITIONS,
    Change,
    Job,
    JobError,
    Status,
    apply,
    new_job,
)

ERROR = JobError("broken", "it broke; mend it")


def a_job() -> Job:
    """A job that nothing has happened to."""
    return new_job(job_id="job-1", tenant="acme", model="smollm2", recipe="lora", now=1000.0)


def changed(job: Job, change: Change, now: float = 1000.0) -> Job:
    """The change with an error where one is needed."""
    return apply(job, change, now=now, error=ERROR if change is Change.FAIL else None)


def walk(changes: list[Change]) -> list[Job]:
    """The job and what each legal change made of it; illegal ones are passed over."""
    jobs = [a_job()]
    for change in changes:
        if (jobs[-1].status, change) in TRANSITIONS:
            jobs.append(changed(jobs[-1], change))
    return jobs


CHANGES = st.lists(st.sampled_from(Change), max_size=30)


@given(CHANGES, st.sampled_from(Change))
def test_a_change_happens_if_and_only_if_it_is_in_the_table(changes: list[Change], change: Change) -> None:
    """Wherever a job has come to, the table alone says what comes next."""
    job = walk(changes)[-1]
    expected = TRANSITIONS.get((job.status, change))

    if expected is None:
        with pytest.raises(IllegalTransition) as caught:
            changed(job, change)
        assert (job.id, job.status, change) == (caught.value.job_id, caught.value.status, caught.value.change)
    else:
        assert expected == changed(job, change).status


@given(CHANGES, CHANGES)
def test_a_final_status_is_final(before: list[Change], after: list[Change]) -> None:
    """No sequence of changes leads out of succeeded, failed or cancelled."""
    jobs = walk(before + after)

    assert not any(job.terminal for job in jobs[:-1])


def test_the_table_has_no_line_out_of_a_final_status() -> None:
    """The property above, read off the table."""
    assert TERMINAL.isdisjoint(status for status, _ in TRANSITIONS)


def test_every_status_can_be_reached_and_left_unless_final() -> None:
    """No status is decoration, and no job is stuck."""
    left = {status for status, _ in TRANSITIONS}

    assert set(Status) == {Status.QUEUED, *TRANSITIONS.values()}
    assert set(Status) - TERMINAL == left


@given(CHANGES)
def test_the_version_counts_changes_and_the_fence_counts_claims(changes: list[Change]) -> None:
    """Each change is one version; each claim, and nothing else, is one step of the fence."""
    jobs = walk(changes)

    for older, newer in itertools.pairwise(jobs):
        claimed = newer.attempts > older.attempts
        assert older.version + 1 == newer.version
        assert older.fence + int(claimed) == newer.fence


@given(CHANGES)
@example([Change.CLAIM, Change.PAUSE, Change.RESUME])
def test_attempts_start_anew_when_a_person_resumes_or_it_gets_further(changes: list[Change]) -> None:
    """A job that kills its workers is counted; one that was paused four times, or makes checkpoints between
    its workers' deaths, is not blamed for it.
    """
    jobs = walk(changes)

    for older, newer in itertools.pairwise(jobs):
        resumed = (older.status, newer.status) == (Status.PAUSED, Status.QUEUED)
        got_further = older.status is newer.status is Status.RUNNING and older.fence == newer.fence
        assert newer.attempts == 0 if resumed or got_further else newer.attempts >= older.attempts


@given(CHANGES)
def test_a_job_has_an_error_if_and_only_if_it_failed(changes: list[Change]) -> None:
    """No failure without its reason, no reason without a failure."""
    for job in walk(changes):
        assert (job.status is Status.FAILED) == (job.error is not None)


@given(st.lists(st.tuples(st.sampled_from(Change), st.floats(0, 2e9)), max_size=20))
def test_time_does_not_run_backwards(steps: list[tuple[Change, float]]) -> None:
    """Where two machines' clocks differ, the later time stays."""
    job = a_job()
    for change, now in steps:
        if (job.status, change) in TRANSITIONS:
            after = changed(job, change, now)
            assert max(job.updated_at, now) == after.updated_at
            job = after
    assert job.created_at == a_job().created_at


def test_a_failure_without_an_error_is_a_mistake_of_the_caller() -> None:
    """As is an error with any other change."""
    with pytest.raises(ValueError, match="if and only if"):
        apply(a_job(), Change.FAIL, now=1.0)
    with pytest.raises(ValueError, match="if and only if"):
        apply(a_job(), Change.CLAIM, now=1.0, error=ERROR)


def test_a_long_message_is_cut() -> None:
    """A traceback of megabytes does not go into the record."""
    failed = apply(a_job(), Change.FAIL, now=1.0, error=JobError("long", "x" * 10_000_000))

    assert failed.error == JobError("long", "x" * MAX_MESSAGE_CHARS)


@pytest.mark.parametrize("job_id", ["", "a" * 65, "a b", "{a}", "a:b", "ü", "a\n"])
def test_an_id_that_would_break_a_key_is_refused(job_id: str) -> None:
    """Ids go into Redis keys and file names."""
    with pytest.raises(InvalidJob) as caught:
        new_job(job_id=job_id, tenant="acme", model="m", recipe="lora", now=1.0)
    assert caught.value.field == "id"


@pytest.mark.parametrize("field", ["tenant", "model", "recipe"])
@pytest.mark.parametrize("value", ["", "x" * 257, "a b", "a{b", "a\tb"])
def test_a_name_that_is_none_is_refused_by_its_field(field: str, value: str) -> None:
    """The message says which field is wrong."""
    names = {"tenant": "acme", "model": "org/model-7b", "recipe": "lora"} | {field: value}

    with pytest.raises(InvalidJob) as caught:
        new_job(job_id="job-1", now=1.0, **names)

    assert field == caught.value.field
