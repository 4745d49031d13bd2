"""What of a run is told in the job's story: metrics, bounded, and checkpoints."""

from functools import partial

from training.job import Change, Level
from training.ports import JobStore, Look
from training.trainer import trainer_log
from training.trainer.claim import Claim


class Story:
    """Tells what is new behind `step` and `checkpoint`; an adopted run's log is read from its beginning."""

    def __init__(self, claim: Claim, *, step: float = 0.0, checkpoint: int = 0) -> None:
        self._claim = claim
        self._step = step
        self._valid_step = step
        self.checkpoint = checkpoint
        self.trained_tokens = claim.job.trained_tokens
        self._is_diverged = False

    async def tell(self, look: Look) -> None:
        """Raises Left."""
        for numbers in look.metrics:
            self.trained_tokens = max(self.trained_tokens, int(numbers.get("trained_tokens", 0)))
            await self._tell_numbers(numbers)
        for step in look.checkpoints:
            if step > self.checkpoint:
                self.checkpoint = step
                await self._claim.change(Change.PROGRESS)
                await self._claim.tell(f"checkpoint at step {step}", data={"checkpoint_step": float(step)})

    async def _tell_numbers(self, numbers: trainer_log.Metrics) -> None:
        if "diverged" in numbers and not self._is_diverged:
            self._is_diverged = True
            told = f"the loss at step {numbers['step']:.0f} is not a number: the learning rate is too high"
            await self._claim.tell(told, level=Level.WARN)
        is_valid = "valid_loss" in numbers
        if not trainer_log.is_worth_telling(numbers, self._valid_step + 0.5 if is_valid else self._step):
            return
        data = {name: value for name, value in numbers.items() if name != "diverged"}
        if is_valid:
            self._valid_step = numbers["step"]
        else:
            self._step = numbers["step"]
        of = f" of {numbers['total_steps']:.0f}" if "total_steps" in numbers else ""
        loss = f"valid loss {numbers['valid_loss']:.4f}" if is_valid else f"loss {numbers['train_loss']:.4f}"
        await self._claim.tell(f"step {numbers['step']:.0f}{of}: {loss}", data=data)


async def told_before(claim: Claim, store: JobStore) -> Story:
    """A story that goes on behind what earlier claims have told."""
    step, checkpoint, after = 0.0, 0, 0
    while page := await claim.insist(partial(store.events, claim.job.id, after=after)):
        for event in page:
            data = event.data or {}
            step = max(step, data.get("step", 0.0))
            checkpoint = max(checkpoint, int(data.get("checkpoint_step", 0)))
        after = page[-1].seq
    return Story(claim, step=step, checkpoint=checkpoint)
