"""Learning rates as a factor of the configured one, from where the run is; only `plateau` remembers anything."""

from __future__ import annotations

import math

from cyclegan.config import Schedule


def linear_factor(epoch: int, epochs: int, decay_epochs: int) -> float:
    """1 for `epochs`, then a straight line that would reach 0 just after the last epoch (the reference's formula)."""
    return 1 - max(0, epoch + 1 - epochs) / (decay_epochs + 1)


def cosine_factor(progress: float) -> float:
    """From 1 at the start to 0 at the end of the run, half a cosine; the reference's climbs back half-way."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def step_factor(epoch: int, step_epochs: int, gamma: float) -> float:
    """A drop by `gamma` every `step_epochs`."""
    return gamma ** (epoch // step_epochs)


class Plateau:
    """A drop by `factor` after more than `patience` epochs in a row without improvement.

    As PyTorch's ReduceLROnPlateau, but for losses below zero, as generators have with hinge and Wasserstein scores:
    there its relative threshold takes for an improvement what is a little worse.

    Args:
        schedule: the run's schedule section
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.factor, self.best, self.bad_epochs = 1.0, math.inf, 0

    def end_epoch(self, quantity: float) -> None:
        """Take an epoch's mean of what is watched."""
        margin = self.schedule.threshold * abs(self.best) if self.best < math.inf else 0.0
        if quantity < self.best - margin:
            self.best, self.bad_epochs = quantity, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > self.schedule.patience:
            self.factor, self.bad_epochs = self.factor * self.schedule.factor, 0

    def state_dict(self) -> dict:
        return {
            "factor": self.factor,
            "best": self.best,
            "bad": self.bad_epochs,
            "watch": self.schedule.watch,
        }

    def load_state_dict(self, state: dict) -> None:
        """Where another loss is watched by now, its levels are not compared with those of the one before."""
        self.factor = state["factor"]
        if state.get("watch", self.schedule.watch) == self.schedule.watch:
            self.best, self.bad_epochs = state["best"], state["bad"]


class LearningRate:
    """The factor of the learning rate for every update.

    Args:
        schedule: the run's schedule section
        epochs, decay_epochs: of the training section
    """

    def __init__(self, schedule: Schedule, epochs: int, decay_epochs: int):
        self.schedule, self.epochs, self.decay_epochs = schedule, epochs, decay_epochs
        self.plateau = Plateau(schedule)

    def factor(self, place: float, images: int) -> float:
        """For an update at `place` (epochs done, with the part of the current one) after `images` pairs of the run."""
        schedule, total = self.schedule, self.epochs + self.decay_epochs
        epoch = min(int(place), total - 1)
        warmup = min(1.0, (images + 1) / schedule.warmup_images) if schedule.warmup_images else 1.0
        if schedule.name == "linear":
            return warmup * linear_factor(epoch, self.epochs, self.decay_epochs)
        if schedule.name == "step":
            return warmup * step_factor(epoch, schedule.step_epochs, schedule.gamma)
        if schedule.name == "cosine":
            return warmup * cosine_factor(place / total)
        if schedule.name == "plateau":
            return warmup * self.plateau.factor
        return warmup

    def end_epoch(self, quantity: float) -> None:
        """Tell `plateau` the watched quantity's mean over the epoch."""
        if self.schedule.name == "plateau":  # another schedule's run may go on as one, and begins at 1 there
            self.plateau.end_epoch(quantity)

    def state_dict(self) -> dict:
        return self.plateau.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.plateau.load_state_dict(state)
