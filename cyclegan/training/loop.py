"""The one loop for all algorithms.

Path of a batch: the feed gives {"A": x, "B": y} in [-1, 1]; `Trainer.update` asks the algorithm for its losses and
does backward, step and zero_grad for each of them; then comes what is due by images seen: curves, sheets, states.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from tqdm import tqdm

from cyclegan.algorithms import complete_config
from cyclegan.config import Config, ConfigError, load_config
from cyclegan.errors import UserError
from cyclegan.evaluation.ranks import on_first_rank
from cyclegan.training import checkpoint
from cyclegan.training.auto import with_speed
from cyclegan.training.chronicle import Chronicle
from cyclegan.training.feed import Feed
from cyclegan.training.journal import end_trackers
from cyclegan.training.launch import found_device, new_accelerator
from cyclegan.training.rollback import (
    Diverged,
    Rollback,
    note_rollback,
    rollbacks,
    seed_after,
    spoiled,
)
from cyclegan.training.run_folder import set_aside
from cyclegan.training.saving import Saving
from cyclegan.training.schedules import LearningRate
from cyclegan.training.scoring import Scorer, summary
from cyclegan.training.session import only_session
from cyclegan.training.state import Progress, RunState
from cyclegan.training.stop import Stopper
from cyclegan.training.trainer import Trainer
from cyclegan.whole_files import write_whole

NEVER = 10**18


def train(config: Config | dict[str, Any] | str | Path, resume: str = "auto") -> Path:
    """Train to the end of the configured run; returns the run's folder.

    Args:
        config: a Config, or what `load_config` takes
        resume: "auto" goes on from the newest intact state, if there is one; "none" starts afresh and sets what is
            there aside; else the folder of a state or of a run to go on from

    Raises ConfigError, FileNotFoundError, ImageError and CheckpointError with one line that says what to change,
    RunBusy if another session trains this run, Diverged for losses that are no longer finite. A signal (SIGTERM,
    SIGINT, SIGUSR1) saves and raises SystemExit.

    Several processes stay a group when the run has ended: what comes next, another run or `evaluate`, all of them call.
    """
    config = complete_config(config if isinstance(config, Config) else load_config(config))
    config, choice = with_speed(config, found_device(), resume, _was_restarted())
    with (
        new_accelerator(config) as accelerator,
        Stopper(accelerator, config.training.max_time) as stopper,
        only_session(config.folder),
    ):
        if choice and accelerator.is_main_process:
            tqdm.write(choice)
        if on_first_rank(lambda: _was_restarted() and checkpoint.all_states(config.folder / "state")):
            resume = "auto"  # the command that is repeated may say where to begin, but the run is under way
        while rollback := _attempt(config, accelerator, stopper, resume):
            if rollback.to or resume == "none":
                resume = "auto"
    return config.folder


def _was_restarted() -> bool:
    """By torchrun's --max-restarts or Slurm's requeue."""
    return any(int(os.environ.get(f"{by}_RESTART_COUNT") or 0) for by in ("TORCHELASTIC", "SLURM"))


def _attempt(config: Config, accelerator: Accelerator, stopper: Stopper, resume: str) -> Rollback | None:
    """Train to the end, or to where the run has to go back; what it held is free then."""
    times = 0 if resume == "none" else on_first_rank(lambda: len(rollbacks(config.folder / "log")))
    run = Run(config, accelerator, stopper, times)
    run.resume(resume)
    try:
        run.go()
    except Rollback as rollback:
        run.go_back(rollback)
        return rollback.with_traceback(None)
    return None


class Run:
    """A run on its way: pictures in, updates, and what is due after them.

    Args:
        config: the run
        accelerator: its device and processes
        stopper: knows when to stop
        times: how often it has gone back to an earlier state, each time with a new seed
    """

    def __init__(self, config: Config, accelerator: Accelerator, stopper: Stopper, times: int):
        self.config, self.accelerator, self.stopper = config, accelerator, stopper
        seed = seed_after(config.seed, times)
        self.trainer = Trainer(config.model_copy(update={"seed": seed}), accelerator)
        self.save_due = False
        with stopper.asleep():  # headers of many pictures, or a cache, may take minutes
            self.feed = Feed(config, accelerator, self.trainer, seed)
        self.rate = LearningRate(config.schedule, config.training.epochs, config.training.decay_epochs)
        self.chronicle = Chronicle(config, accelerator)
        self.state = RunState(config, accelerator, self.trainer, self.rate, self.chronicle.doctor, times)
        self.saving = Saving(self.state)
        self.total_images = self._total_images()
        self.scorer = Scorer(config, accelerator, self.trainer.generators) if config.evaluation.every_epochs else None

    @property
    def progress(self) -> Progress:
        return self.state.progress

    def _total_images(self) -> int:
        """When the run ends, from where it is: epochs may have had another length before it was resumed."""
        training, progress = self.config.training, self.progress
        update = self.feed.global_batch * training.accumulate
        epochs = max(0, training.epochs + training.decay_epochs - progress.epoch)
        steps = max(0, training.max_steps - self.trainer.steps) if training.max_steps else NEVER
        left = min(
            epochs * self.feed.epoch_images - progress.place,
            steps * update,
            max(0, (training.max_images or NEVER) - progress.images),
        )
        return progress.images + max(0, -(-left // update) * update)  # the last update is a whole one

    def go(self) -> None:
        """From where the run is to its end."""
        self._start()
        with self._new_bar() as self.bar:
            if self.state.score_due:
                self._score()
            while self.progress.images < self.total_images:
                self._epoch()
            self._add_sheet()
        for line in summary(self.chronicle.journal.path) if self.scorer and self.accelerator.is_main_process else []:
            self.say(line)
        self.accelerator.wait_for_everyone()

    def _start(self) -> None:
        config, training = self.config, self.config.training
        on_first_rank(lambda: checkpoint.check_writable(self.saving.states))
        if self.accelerator.is_main_process:
            write_whole(config.folder / "config.yaml", config.to_yaml())
        self.chronicle.open(self.progress.images)
        self.say(
            f"{config.name}: {self.feed.sizes()}; {self.feed.epoch_images} pairs an epoch, "
            f"{training.epochs} + {training.decay_epochs} epochs; "
            f"batch {training.batch_size} x {self.accelerator.num_processes} processes x {training.accumulate} "
            f"accumulated = {self.feed.global_batch * training.accumulate} pairs an update; "
            f"{self.accelerator.device}, precision {config.speed.precision or self.accelerator.mixed_precision}"
        )
        if self.progress.images == 0:
            self._add_sheet()

    def _new_bar(self) -> tqdm:
        return tqdm(
            total=self.total_images,
            initial=self.progress.images,
            unit="img",
            disable=not self.accelerator.is_main_process,
            mininterval=0.5 if sys.stderr.isatty() else 30,  # a log file wants fewer lines
            dynamic_ncols=True,
        )

    def _epoch(self) -> None:
        """From where the run is to the end of the epoch, or of the run."""
        progress = self.progress
        for batch in self._batches():
            place = progress.epochs(self.feed.epoch_images)
            losses = self.trainer.update(batch, self.rate.factor(place, progress.images))
            self._watch(losses)
            before = progress.images
            progress.place += self.feed.global_batch
            progress.images += self.feed.global_batch
            if progress.place >= self.feed.epoch_images:
                self._end_epoch()
            self._after_batch(before)
            if progress.images >= self.total_images:
                return

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """The rest of the epoch's. Where a picture ends the run, one process alone saves what it has learned before."""
        try:
            yield from self.feed.rest(self.progress.epoch, self.progress.place)
        except UserError:
            whole = self.accelerator.sync_gradients and self.accelerator.num_processes == 1
            if whole and self.progress.images and not self.saving.saved():
                self.save()
                self.say(f"saved after {self.progress.images} images, for a picture ends the run")
            raise

    def _watch(self, losses: dict[str, Tensor]) -> None:
        schedule = self.config.schedule
        if schedule.name != "plateau":
            return
        if schedule.watch not in losses:
            raise ConfigError(f"schedule.watch: no loss {schedule.watch!r}; choices: {', '.join(losses)}")
        self.state.epoch_means.add({schedule.watch: losses[schedule.watch]})

    def _end_epoch(self) -> None:
        progress, schedule = self.progress, self.config.schedule
        progress.epoch, progress.place = progress.epoch + 1, 0
        if schedule.name == "plateau":
            self.rate.end_epoch(self.state.epoch_means.take(self.accelerator)[schedule.watch])
        if progress.epoch % self.config.saving.every_epochs == 0:
            self.save_due = True
        if self.scorer and progress.epoch % self.config.evaluation.every_epochs == 0:
            self.state.score_due = self.save_due = True

    def _after_batch(self, before: int) -> None:
        """What is due at a multiple of so many images that this batch has reached or passed."""
        logging, saving, images = self.config.logging, self.config.saving, self.progress.images

        def due(every: int | None) -> bool:
            return bool(every) and before // every != images // every

        self.bar.update(self.feed.global_batch)
        if due(logging.log_every):
            self._add_curves()
        if due(logging.sample_every):
            self._add_sheet()
        if self.config.training.rollbacks and (due(logging.log_every) or due(logging.sample_every)):
            self._roll_back(spoiled(self.chronicle.take_remarks()), self.chronicle.doctor.sound_until())
        self.save_due |= due(saving.every_images)
        finished = images >= self.total_images
        if not (self.accelerator.sync_gradients or finished):
            return  # gradients are half added up: nothing that could be gone on from
        reason = self.stopper.reason()
        if finished:
            self._add_curves()
        if self.save_due or finished or reason:
            self.save()
        if self.state.score_due and not reason:
            self._score()
        if reason and (self.state.score_due or not finished):
            unscored = ", before they were scored" if finished else ""
            self.say(f"stopped by {reason} after {images} images{unscored}; --resume auto goes on")
            raise SystemExit(128 + self.stopper.received if self.stopper.received else 0)

    def _add_curves(self) -> None:
        losses = self.trainer.means.take(self.accelerator)
        if not losses:
            return
        bad = [name for name, value in losses.items() if value - value != 0]  # infinite, or not a number
        if bad:
            self._give_up(", ".join(bad))
        progress, trainer, epochs = self.progress, self.trainer, self.progress.epochs(self.feed.epoch_images)
        values = {**losses, **trainer.rates(), **trainer.strengths()}
        waited = self.feed.take_waited()
        self.chronicle.add_curves(progress.images, epochs, trainer.steps, values, waited)
        self.bar.set_description(f"epoch {math.ceil(epochs)}", refresh=False)
        self.bar.set_postfix({name: f"{losses[name]:.3f}" for name in trainer.optimizers}, refresh=False)

    def _add_sheet(self) -> None:
        trainer = self.trainer
        self.chronicle.add_sheet(self.progress.images, trainer.steps, trainer.shown(), trainer.dtype)

    def _score(self) -> None:
        """After the state is safe: what goes wrong here costs nothing else."""
        self.state.score_due = False
        began, images = time.monotonic(), self.progress.images
        shown = self.trainer.shown()
        for buffer in (buffer for generator in shown.values() for buffer in generator.buffers()):
            broadcast(buffer)  # batch norm's statistics: what is saved is scored, the first process's
        scores, cards = self.scorer.score(shown, images)
        self.chronicle.add_scores(images, scores, cards)
        self.say(", ".join(f"{name} {value:.5g}" for name, value in scores.items()))
        if self.accelerator.is_main_process:
            with self.chronicle.spared():
                self.saving.add_scores(scores)
        self.stopper.slowest = max(self.stopper.slowest, time.monotonic() - began)

    def _roll_back(self, why: str | None, sound: int) -> None:
        """Raise Rollback on every process if the main one knows a reason why, and the run may go back once more.

        `sound` are the images up to which the weights were good: only states from before count.
        """
        if self.state.rollbacks >= self.config.training.rollbacks:
            return
        to, why = on_first_rank(lambda: (self.saving.sound(sound), why))
        if why:
            raise Rollback(self.progress.images, to, why)

    def go_back(self, rollback: Rollback) -> None:
        """Make the state that `rollback` names the newest one, and let go of what this Run holds."""
        if self.accelerator.is_main_process:
            checkpoint.abandon_newer(self.saving.states, checkpoint.state_of(self.saving.states, rollback.to))
            note_rollback(self.chronicle.log, rollback)
        end_trackers(self.accelerator)
        self.accelerator.free_memory()
        self.say(
            f"rollback {self.state.rollbacks + 1} of {self.config.training.rollbacks}: from {rollback.images} images "
            f"to {rollback.to}, with a new seed, because {rollback.why}"
        )
        self.accelerator.wait_for_everyone()

    def _give_up(self, what: str) -> None:
        self._roll_back(f"not finite: {what}", self.progress.images)
        states = checkpoint.all_states(self.saving.states)
        good = f"the last good state is {states[-1]}" if states else "no state was saved before"
        raise Diverged(
            f"not finite after {self.progress.images} images: {what}; {good}. "
            "A lower optimizer.lr, training.clip=1 or float32 (speed.precision=no) are the usual cures"
        )

    def save(self) -> None:
        """What the run can go on from, and its generators; it goes on without them if the disk is full."""
        self.save_due = False
        if bad := self.trainer.not_finite():
            self._give_up(f"weights of {', '.join(bad)}")
        began = time.monotonic()
        problem = self.saving.save()
        if problem and self.progress.images >= self.total_images:
            raise OSError(
                f"trained to the end, but not all could be saved ({problem}); mend that and give the same "
                "command again, which goes on from the newest state"
            )
        if problem:
            self.say(f"warning: could not save ({problem}); the newest state before is untouched; going on")
        self.accelerator.wait_for_everyone()
        self.stopper.slowest = max(self.stopper.slowest, time.monotonic() - began)

    def resume(self, wanted: str) -> None:
        """Restore what `wanted` means, see `train`; says what has changed and what could not be kept."""
        if wanted == "none":
            self._check_left()
            self._start_from_others()  # before: it may be the earlier run
            if aside := set_aside(self.config, self.accelerator):
                self.say(f"the earlier run is now {aside}")
            return
        state = on_first_rank(lambda: checkpoint.find_state(self.saving.states, wanted, self.say))
        if state is None:
            self._check_left()
            self._start_from_others()
            return
        self.state.restore(state, self.say)
        self.state.score_due = self.state.score_due and self.scorer is not None
        self._fit_place()
        self.total_images = self._total_images()
        if not checkpoint.is_among(self.saving.states, state):
            self._check_left()
        if self.accelerator.is_main_process:
            checkpoint.abandon_newer(self.saving.states, state)

    def _check_left(self) -> None:
        """Of a run without a state of its own: over already, it would end without any, and without generators."""
        if self.progress.images >= self.total_images:
            raise ConfigError(
                f"{self.config.name}: nothing to train, after {self.progress.images} images it is over already "
                "(training.epochs + decay_epochs, max_images, max_steps)"
            )

    def _start_from_others(self) -> None:
        if self.config.init_from:
            for start in self.trainer.start_from(self.config.init_from):
                self.say(f"init_from: {start}")

    def _fit_place(self) -> None:
        """The place in the epoch, where batches have another size now."""
        progress, batch = self.progress, self.feed.global_batch
        extra = progress.place % batch
        if extra:
            progress.place -= extra
            self.say(f"warning: a batch of {batch} pairs: {extra} pairs of this epoch are seen again")
        if progress.place >= self.feed.epoch_images:
            progress.epoch, progress.place = progress.epoch + 1, 0

    def say(self, message: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(message)
