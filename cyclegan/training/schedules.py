"""Learning rates as a factor of the configured one, from where the run is; only `plateau` remembers anything."""

from __future__ import annotations

import math

import torch

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


class LearningRate:
    """The factor of the learning rate for every update.

    Args:
        schedule: the run's schedule section
        epochs, decay_epochs: of the training section
        epoch_images: pairs an epoch, over all processes
    """

    def __init__(self, schedule: Schedule, epochs: int, decay_epochs: int, epoch_images: int):
        self.schedule, self.epochs, self.decay_epochs, self.epoch_images = schedule, epochs, decay_epochs, epoch_images
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            torch.optim.SGD([torch.zeros(1)], lr=1.0),  # stands in for ours: only its factor is wanted
            factor=schedule.factor,
            patience=schedule.patience,
            threshold=schedule.threshold,
        )

    def factor(self, epoch: int, images: int) -> float:
        """For an update in 0-based `epoch` after `images` pairs of the run."""
        schedule = self.schedule
        epoch = min(epoch, self.epochs + self.decay_epochs - 1)
        warmup = min(1.0, (images + 1) / schedule.warmup_images) if schedule.warmup_images else 1.0
        if schedule.name == "linear":
            return warmup * linear_factor(epoch, self.epochs, self.decay_epochs)
        if schedule.name == "step":
            return warmup * step_factor(epoch, schedule.step_epochs, schedule.gamma)
        if schedule.name == "cosine":
            return warmup * cosine_factor(images / (self.epoch_images * (self.epochs + self.decay_epochs)))
        if schedule.name == "plateau":
            return warmup * self.plateau.optimizer.param_groups[0]["lr"]
        return warmup

    def end_epoch(self, quantity: float) -> None:
        """Tell `plateau` the watched quantity's mean over the epoch."""
        if self.schedule.name == "plateau":  # another schedule's run may go on as one, and begins at 1 there
            self.plateau.step(quantity)

    def state_dict(self) -> dict:
        factor = self.plateau.optimizer.param_groups[0]["lr"]
        return {"factor": factor, "best": self.plateau.best, "bad": self.plateau.num_bad_epochs}

    def load_state_dict(self, state: dict) -> None:
        self.plateau.optimizer.param_groups[0]["lr"] = state["factor"]
        self.plateau.best, self.plateau.num_bad_epochs = state["best"], state["bad"]
