"""Use case: a claimed job is trained: begun, adopted or resumed, followed to its end, and its model kept.

    the record    the folder's run      what happens
    running       alive                 adopted
    running       ended                 its end is judged
    anything      otherwise             the rest is ended, and it begins at the newest whole checkpoint

An exit code decides nothing by itself: a trainer that was told to stop saves what it has and ends with 0.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from training.job import Change, Level, Status
from training.ports import Look, Prepared, Run
from training.trainer import stall
from training.trainer.claim import Claim, Failed, Left
from training.trainer.leasing import Leasing
from training.trainer.story import Story, told_before
from training.trainer.workshop import Workshop

log = logging.getLogger(__name__)
_T = TypeVar("_T")

FROM_OUTSIDE = frozenset({129, 130, 137, 143})
"""Exit codes by which a shell or a launcher says that a signal ended its child."""


async def train(claim: Claim, shop: Workshop, folder: Path) -> None:
    """To the record `succeeded`. Raises Left, Failed and RequestFault; no process is left then, except where
    the job was claimed anew: its run is the new claim's.
    """
    course = _Course(claim, shop, folder)
    try:
        await course.go()
    except Left as left:
        if left.status is not None:
            await course.stop(patient=left.status in (Status.PAUSED, Status.QUEUED))
        raise
    except Exception:
        await course.stop()
        raise
    finally:
        await course.leasing.release()


class _Course:
    def __init__(self, claim: Claim, shop: Workshop, folder: Path) -> None:
        self._claim = claim
        self._shop = shop
        self._folder = folder
        self.leasing = Leasing(claim, shop)
        self._story = Story(claim)

    async def go(self) -> None:
        run = await self._shop.runs.find(self._folder)
        self._story = await told_before(self._claim, self._shop.store)
        if self._claim.job.status is Status.RUNNING and run.state == "alive":
            await self._claim.tell("the trainer lives: its run is taken over")
        elif self._claim.job.status is not Status.RUNNING or run.state != "ended":
            await self._begin()
        restarts, furthest = 0, self._story.checkpoint
        while not await self._is_done(await self._followed()):
            restarts = 0 if self._story.checkpoint > furthest else restarts + 1
            furthest = self._story.checkpoint
            if restarts > self._shop.patience.restarts:
                raise Failed(
                    "trainer_killed",
                    f"The trainer was ended from outside {restarts} times and got to no further checkpoint."
                    " Look into the system's log (memory is the usual cause), and submit the job again.",
                )
            await self._claim.tell("the trainer was ended from outside", level=Level.WARN)
            await self._begin()
        await self._keep_model()

    async def stop(self, *, patient: bool = False) -> None:
        """End the run, whatever it is, and tell where it will be resumed."""
        run = await self._shop.runs.find(self._folder)
        await self._shop.runs.stop(self._folder, run, patient=patient)
        if patient:
            look = await self._shop.runs.follow(self._folder).look()
            newest = max((self._story.checkpoint, *look.checkpoints))
            where = f"resumes from step {newest}" if newest else "has no checkpoint: it begins anew"
            await self._claim.tell(f"stopped; it {where}", data={"checkpoint_step": float(newest)})

    async def _begin(self) -> None:
        """Prepare, plan, lease and start. The keeper's locks have the last word."""
        runs, job = self._shop.runs, self._claim.job
        await runs.stop(self._folder, await runs.find(self._folder))
        resume_from = await runs.clear(self._folder)
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        prepared = await self._shop.datasets.prepare(job, self._folder / "dataset")
        plan = await self._shop.recipes.plan(job, prepared, folder=self._folder, resume_from=resume_from)
        await self._shop.shelf.note(job, self._folder, plan, prepared)
        for note in (*prepared.notes, *plan.notes)[:50]:
            await self._claim.tell(note)
        await self._start_change(prepared)
        step = int(resume_from.name.rpartition("-")[2]) if resume_from else 0
        self._story = Story(self._claim, step=float(step), checkpoint=step)
        while True:
            await self.leasing.wait()
            await self._claim.check()
            started = await runs.start(self._folder, plan, fence=self._claim.job.fence)
            if started == "outdated":
                raise Left(job.id, None)
            if started == "started":
                break
            await self._shop.sleep(self._shop.patience.look_every_s)
        await self._claim.tell(f"resumed from step {step}" if step else "training has begun")

    async def _start_change(self, prepared: Prepared) -> None:
        change = Change.START if self._claim.job.status is Status.VALIDATING else Change.PROGRESS
        attempts = self._claim.job.attempts
        await self._claim.change(change, examples=prepared.examples, attempts=attempts)

    async def _followed(self) -> Run:
        """Look at run and record until the run has ended."""
        follower, pulse = self._shop.runs.follow(self._folder), None
        while True:
            await self._claim.glance()
            look = await follower.look()
            await self._story.tell(look)
            self._check_examples(look)
            if look.run.state != "alive":
                return look.run
            await self.leasing.keep()
            now = self._shop.clock()
            pulse = stall.felt(pulse, log_bytes=look.log_bytes, cpu_ticks=look.cpu_ticks, now=now)
            if stall.is_stalled(pulse, now=now, after_s=self._shop.patience.stall_s):
                raise Failed(
                    "stalled",
                    f"The trainer wrote nothing and used no processor for"
                    f" {self._shop.patience.stall_s:.0f} s. It was ended; see the job's trainer.log.",
                )
            await self._shop.sleep(self._shop.patience.look_every_s)

    def _check_examples(self, look: Look) -> None:
        wanted = self._claim.job.examples
        if look.examples is not None and look.examples != wanted:
            raise Failed(
                "examples_lost",
                f"The dataset has {wanted} examples and the trainer says that it has {look.examples}:"
                " it would train on something else. Check the recipe's packing and max_samples.",
            )

    async def _is_done(self, run: Run) -> bool:
        """True: it made its last step. False: it was ended from outside. Raises Failed, Left."""
        await self._claim.check()
        if run.state == "ended" and run.code == 0 and await self._shop.runs.is_complete(self._folder):
            return True
        is_outside = run.state != "ended" or run.is_stopped or run.code <= 0 or run.code in FROM_OUTSIDE
        if is_outside:
            return False
        error = await self._shop.runs.cause(self._folder, run.code)
        raise Failed(error.code, error.message)

    async def _keep_model(self) -> None:
        if self._shop.evaluator is not None:
            await self._claim.tell("trained; the model is evaluated")
            evaluation = self._shop.evaluator.after_training(self._claim.job, self._folder)
            await self._meanwhile(evaluation, look=self._claim.glance)
        await self._claim.check()
        name = await self._meanwhile(self._shop.shelf.publish(self._claim.job, self._folder))
        try:
            await self._claim.change(
                Change.SUCCEED, fine_tuned_model=name, trained_tokens=self._story.trained_tokens
            )
        except Left as left:
            if left.status is not None:
                await self._shop.shelf.withdraw(self._folder, name)
            raise
        await self._claim.tell(f"succeeded: {name}")

    async def _meanwhile(
        self, work: Coroutine[Any, Any, _T], *, look: Callable[[], Awaitable[None]] | None = None
    ) -> _T:
        """Keep the lease while something works, and end it where `look` raises."""
        try:
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(work)
                while not task.done():
                    await asyncio.wait({task}, timeout=self._shop.patience.look_every_s)
                    if look is not None and not task.done():
                        await look()
                    await self.leasing.keep()
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return task.result()
