"""A job's hyperparameters over a recipe's, and how many steps that makes."""

import math

import msgspec

from training.errors import InvalidJob
from training.job import Hyperparameters
from training.recipes.recipe import Launch, Settings
from training.recipes.run_settings import RunSettings

PER_DEVICE = 8
"""transformers 5.6's default of per_device_train_batch_size."""
EPOCHS = 3.0
RATE = 5e-5
BETA = 0.1


def with_hyperparameters(settings: Settings, wanted: Hyperparameters, launch: Launch) -> Settings:
    """The recipe's settings under what the job wants instead. Raises InvalidJob, naming the field."""
    run, method = settings.run, settings.method
    if wanted.n_epochs is not None:
        _above_nothing("n_epochs", wanted.n_epochs)
        run = msgspec.structs.replace(run, num_train_epochs=float(wanted.n_epochs), max_steps=None)
    if wanted.learning_rate_multiplier is not None:
        _above_nothing("learning_rate_multiplier", wanted.learning_rate_multiplier)
        rate = (RATE if run.learning_rate is None else run.learning_rate) * wanted.learning_rate_multiplier
        run = msgspec.structs.replace(run, learning_rate=rate)
    if wanted.batch_size is not None:
        run = _with_batch(run, wanted.batch_size, launch.world)
    if wanted.beta is not None:
        _above_nothing("beta", wanted.beta)
        if method.stage != "dpo":
            raise InvalidJob("hyperparameters.beta", "belongs to the method dpo; leave it out")
        method = msgspec.structs.replace(method, pref_beta=float(wanted.beta))
    return msgspec.structs.replace(settings, run=run, method=method)


def examples_per_step(run: RunSettings, world: int) -> int:
    """On all devices together."""
    return (run.per_device_train_batch_size or PER_DEVICE) * (run.gradient_accumulation_steps or 1) * world


def steps(run: RunSettings, *, examples: int, world: int) -> int:
    """Optimiser steps of the whole run, as transformers counts them.

    Per epoch ceil(batches / accumulation), where each device gets ceil(examples / world) of them.
    """
    if run.max_steps is not None and run.max_steps > 0:
        return run.max_steps
    batches = math.ceil(math.ceil(examples / world) / (run.per_device_train_batch_size or PER_DEVICE))
    per_epoch = max(1, math.ceil(batches / (run.gradient_accumulation_steps or 1)))
    return math.ceil((EPOCHS if run.num_train_epochs is None else run.num_train_epochs) * per_epoch)


def _with_batch(run: RunSettings, batch: int, world: int) -> RunSettings:
    """As many examples a step, and never more at once on a device than the recipe, which knows the memory."""
    if batch < 1 or batch % world:
        raise InvalidJob(
            "hyperparameters.batch_size", f"is divided among {world} processes: give a multiple of {world}"
        )
    share = batch // world
    most = run.per_device_train_batch_size or PER_DEVICE
    at_once = max(size for size in range(1, min(most, share) + 1) if share % size == 0)
    return msgspec.structs.replace(
        run, per_device_train_batch_size=at_once, gradient_accumulation_steps=share // at_once
    )


def _above_nothing(field: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InvalidJob(f"hyperparameters.{field}", f"must be a number above 0, not {value}")
