"""Checks of the run: numbers' kinds, evaluation, what is saved."""

from collections.abc import Iterator

from training.recipes.case import Case

_EVALUATION = ("eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps")


def precision(case: Case) -> Iterator[str]:
    """Half precision needs a GPU, or the word that none is meant."""
    run = case.recipe.settings.run
    kinds = [key for key, on in (("bf16", run.bf16), ("fp16", run.fp16)) if on]
    if len(kinds) == 2:
        yield "bf16 and fp16 exclude each other; bf16 where the GPU has it (Ampere and later)"
    if run.use_cpu and run.fp16:
        yield "fp16 is not possible with use_cpu: leave it out"
    if run.use_cpu and case.recipe.settings.method.pure_bf16:
        yield "pure_bf16 is not possible with use_cpu: leave it out"
    if case.machine is not None and not case.machine.gpus and not run.use_cpu:
        what = f"{' and '.join(kinds)} needs a GPU" if kinds else "the recipe is for GPUs"
        remedy = "and without bf16 and fp16" if kinds else "where the CPU is meant"
        yield f"{what}, and this run got none: use another machine, or use_cpu: true {remedy}"


def evaluation(case: Case) -> Iterator[str]:
    """Something held out, or no evaluation."""
    run = case.recipe.settings.run
    if case.evaluates and case.prepared is not None and not case.prepared.evaluation:
        yield (
            "eval_strategy needs examples that are held out, and the dataset has none: give a validation "
            'file, or write eval_strategy: "no"'
        )
    there = [key for key in _EVALUATION if getattr(run, key) is not None]
    if there and not case.evaluates:
        yield f"{', '.join(there)}: no effect without eval_strategy: steps (or epoch)"


def best(case: Case) -> Iterator[str]:
    """Checkpoints are compared only where evaluations and checkpoints fall together."""
    run = case.recipe.settings.run
    if case.recipe.settings.method.early_stopping_steps and not run.load_best_model_at_end:
        yield "early_stopping_steps needs load_best_model_at_end: true"
    if not run.load_best_model_at_end or run.save_strategy == "best":
        return
    save = run.save_strategy or "steps"
    if (run.eval_strategy or "no") != save:
        yield f"load_best_model_at_end needs eval_strategy to be save_strategy, which is {save}"
    elif save == "steps":
        save_steps, eval_steps = run.save_steps or 500, run.eval_steps or run.logging_steps or 500
        if save_steps % eval_steps:
            yield f"load_best_model_at_end needs save_steps ({save_steps}) to be a multiple of eval_steps"


def saving(case: Case) -> Iterator[str]:
    """A run that can be resumed needs whole checkpoints."""
    run = case.recipe.settings.run
    if not case.recipe.launch.resumable:
        return
    remedy = "leave it out, or launch: {resumable: false}"
    if run.save_only_model:
        yield f"save_only_model leaves out the optimiser, without which no run goes on: {remedy}"
    if run.save_strategy in {"no", "best"}:
        yield f'save_strategy: "{run.save_strategy}" does not write the checkpoints to go on from: {remedy}'


def loading(case: Case) -> Iterator[str]:
    """These end torch before the first step."""
    run = case.recipe.settings.run
    if run.dataloader_num_workers:
        return
    for key in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
        if getattr(run, key):
            yield f"{key} needs dataloader_num_workers of at least 1"
