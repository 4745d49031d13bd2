"""What the checks look at, with LLaMA-Factory's defaults filled in where they matter."""

import msgspec

from training.job import Method
from training.ports import Prepared
from training.recipes.place import Machine
from training.recipes.recipe import Recipe

CUTOFF = 2048
"""LLaMA-Factory 0.9.5's default of cutoff_len."""


class Case(msgspec.Struct, frozen=True):
    """A recipe, and as much of its surroundings as is known: None is unknown and passes."""

    recipe: Recipe
    prepared: Prepared | None = None
    machine: Machine | None = None
    method: Method | None = None
    base_model: str = ""

    @property
    def stage(self) -> str:
        return self.recipe.settings.method.stage or "sft"

    @property
    def finetuning(self) -> str:
        return self.recipe.settings.method.finetuning_type or "lora"

    @property
    def zero(self) -> int | None:
        """The stage of DeepSpeed, None without it."""
        deepspeed = self.recipe.launch.deepspeed
        return None if deepspeed is None else deepspeed.stage

    @property
    def evaluates(self) -> bool:
        run = self.recipe.settings.run
        return run.eval_strategy in {"steps", "epoch"} or bool(run.do_eval)
