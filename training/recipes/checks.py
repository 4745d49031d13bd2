"""What would fail or do harm, said before a GPU is touched.

Everything that LLaMA-Factory would refuse costs 6 to 15 seconds there; what it passes over in silence costs a
whole run. Each check is a function from the case to the problems that it finds.
"""

from training.recipes import checks_launch, checks_method, checks_run
from training.recipes.batches import steps
from training.recipes.case import Case
from training.recipes.faults import BadRecipe
from training.recipes.templates import warning

_CHECKS = (
    checks_method.model,
    checks_method.template,
    checks_method.cutoff,
    checks_method.belonging,
    checks_method.quantization,
    checks_method.counting,
    checks_method.stage,
    checks_method.preferences,
    checks_method.optimisers,
    checks_run.precision,
    checks_run.evaluation,
    checks_run.best,
    checks_run.saving,
    checks_run.loading,
    checks_launch.processes,
    checks_launch.deepspeed,
    checks_launch.environment,
)
_ADAPTER_RANK = 16


def problems(case: Case) -> tuple[str, ...]:
    """All of them, as far as the case is known."""
    return tuple(problem for check in _CHECKS for problem in check(case))


def checked(case: Case) -> None:
    """Raise BadRecipe with every problem."""
    if found := problems(case):
        raise BadRecipe(case.recipe.name, found)


def warnings(case: Case) -> tuple[str, ...]:
    """What is allowed and may surprise."""
    settings, notes = case.recipe.settings, []
    if settings.data.template and (told := warning(settings.data.template)):
        notes.append(told)
    if settings.run.max_steps and settings.run.max_steps > 0 and settings.run.num_train_epochs is not None:
        notes.append("max_steps counts, num_train_epochs does not")
    if case.finetuning == "lora":
        notes += _serving(case)
    if case.prepared is not None and case.recipe.launch.resumable:
        notes += _checkpoints(case, case.prepared.examples)
    return tuple(notes)


def _serving(case: Case) -> list[str]:
    method = case.recipe.settings.method
    notes = []
    if (method.lora_rank or 0) > _ADAPTER_RANK:
        notes.append(
            f"lora_rank {method.lora_rank}: vLLM refuses ranks above its --max-lora-rank, "
            f"{_ADAPTER_RANK} unless set"
        )
    if method.use_dora or method.additional_target:
        notes.append("use_dora and additional_target make adapters that vLLM does not load")
    return notes


def _checkpoints(case: Case, examples: int) -> list[str]:
    run = case.recipe.settings.run
    every = 500 if run.save_steps is None else run.save_steps
    total = steps(run, examples=examples, world=case.recipe.launch.world)
    if (run.save_strategy or "steps") != "steps" or every < 1 or every < total:
        return []
    return [f"the run has {total} steps and save_steps is {every:g}: if it dies, it begins anew"]
