"""Training jobs, their events and checkpoints as OpenAI's fine-tuning API shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.job import Hyperparameters, Job, JobEvent, Status
from training.progress import CHECKPOINT, curve, progress

CURVE_POINTS = 200
_STATUS = {Status.VALIDATING: "validating_files"}
_METRICS = (
    *("train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy"),
    *("full_valid_loss", "full_valid_mean_token_accuracy"),
)
_OF_FILES = frozenset({"bad_dataset", "file_missing"})
"""Codes of errors that the training file is the cause of."""


def job_object(job: Job, events: Sequence[JobEvent] = ()) -> dict[str, Any]:
    """A job; with its events, when it will be done. OpenAI has no word for `paused`."""
    set_of_it = _hyperparameters(job.hyperparameters)
    of_method = (
        set_of_it if job.method == "supervised" else set_of_it | {"beta": _or_auto(job.hyperparameters.beta)}
    )
    done = progress(events) if job.status is Status.RUNNING else None
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at),
        "model": job.model,
        "fine_tuned_model": job.fine_tuned_model or None,
        "organization_id": job.tenant,
        "status": _STATUS.get(job.status, job.status.value),
        "training_file": job.training_file,
        "validation_file": job.validation_file or None,
        "result_files": [],
        "hyperparameters": set_of_it,
        "method": {"type": job.method, job.method: {"hyperparameters": of_method}},
        "seed": job.seed or 0,
        "trained_tokens": (job.trained_tokens or None) if job.terminal else None,
        "finished_at": _finished(job),
        "estimated_finish": int(done.finishes_at) if done and done.finishes_at is not None else None,
        "error": _error(job),
        "metadata": dict(job.metadata) or None,
        "integrations": [],
        "user_provided_suffix": job.suffix or None,
        "recipe": job.recipe,
    }


def event_object(job: Job, event: JobEvent) -> dict[str, Any]:
    """One line of its story."""
    return {
        "id": event_id(job, event),
        "object": "fine_tuning.job.event",
        "created_at": int(event.at),
        "level": event.level.value,
        "message": event.message,
        "type": "message" if event.data is None else "metrics",
        "data": None if event.data is None else dict(event.data),
    }


def event_id(job: Job, event: JobEvent) -> str:
    """The same for the same line, however often it is read."""
    return f"ftevent-{job.id}-{event.seq}"


def checkpoint_object(job: Job, step: int, event: JobEvent) -> dict[str, Any]:
    """A state that was saved. It is for resuming: no node serves it under this name."""
    data = event.data or {}
    return {
        "id": checkpoint_id(job, step),
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(event.at),
        "fine_tuning_job_id": job.id,
        "fine_tuned_model_checkpoint": f"{job.id}:ckpt-step-{step}",
        "step_number": step,
        "metrics": {"step": step} | {name: data[name] for name in _METRICS if name in data},
    }


def checkpoint_id(job: Job, step: int) -> str:
    """The same for the same step."""
    return f"ftckpt-{job.id}-{step}"


def listed_job(job: Job, events: Sequence[JobEvent]) -> dict[str, Any]:
    """A job for who runs the gateway: whose it is, how far, and its loss over the steps."""
    done = progress(events)
    return job_object(job, events) | {
        "tenant": job.tenant,
        "updated_at": int(job.updated_at),
        "attempts": job.attempts,
        "examples": job.examples,
        "step": done.step if done else None,
        "total_steps": (done.total_steps or None) if done else None,
        "loss": [
            _point(point.step, point.train_loss, point.valid_loss)
            for point in curve(events, most=CURVE_POINTS)
        ],
        "checkpoints": sum(1 for event in events if event.data and CHECKPOINT in event.data),
    }


def _point(step: int, train_loss: float | None, valid_loss: float | None) -> dict[str, Any]:
    return {"step": step, "train_loss": train_loss, "valid_loss": valid_loss}


def _finished(job: Job) -> int | None:
    if not job.terminal:
        return None
    return int(job.finished_at if job.finished_at is not None else job.updated_at)


def _error(job: Job) -> Mapping[str, Any] | None:
    if job.error is None:
        return None
    param = "training_file" if job.error.code in _OF_FILES else None
    return {"code": job.error.code, "message": job.error.message, "param": param}


def _hyperparameters(given: Hyperparameters) -> dict[str, Any]:
    return {
        "n_epochs": _or_auto(given.n_epochs),
        "batch_size": _or_auto(given.batch_size),
        "learning_rate_multiplier": _or_auto(given.learning_rate_multiplier),
    }


def _or_auto(number: float | None) -> float | int | str:
    if number is None:
        return "auto"
    return int(number) if number == int(number) else number
