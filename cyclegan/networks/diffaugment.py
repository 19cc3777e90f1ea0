"""What a discriminator sees, varied at random: differentiable, so that a generator learns through it.

Zhao et al. 2020 (arXiv 2006.10738): real and generated pictures go through the same changes, so few pictures are harder
to learn by heart, and the generator is not asked for the changes. Karras et al. 2020 (arXiv 2006.06676): their
probability follows how sure the discriminator is of real pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Change = Literal["colour", "translation", "cutout"]
EVERY = 256  # real pictures between two adjustments: four batches of 64, as published


class DiffAugment(nn.Module):
    """(N, C, H, W) -> the same, each picture changed in each of the ways with probability p; the identity at p = 0.

    Draws come from torch's global generator. With a `target`, p is state: it moves by 1 / ramp_images for each real
    picture, up where the discriminator is surer of real pictures than the target, down where it is less sure.

    Args:
        policy: ways: colour (brightness, saturation, contrast), translation (up to an eighth), cutout (half the sides)
        p: probability of each way for each picture; with a target, where it starts
        target: mean sign of the scores of real pictures to hold, 0.6 in the paper; None leaves p alone
        ramp_images: real pictures in which p can go from 0 to 1
    """

    def __init__(
        self, policy: Sequence[Change], p: float = 1.0, target: float | None = None, ramp_images: int = 500_000
    ):
        super().__init__()
        self.policy, self.target, self.ramp_images = tuple(policy), target, ramp_images
        adaptive = target is not None
        self.register_buffer("p", torch.tensor(p), persistent=adaptive)
        self.register_buffer("signs", torch.zeros(2), persistent=adaptive)  # sum and number since the last adjustment
        self.register_buffer("heard", torch.zeros(2), persistent=False)  # the same, of this process since `adapt`

    def forward(self, images: Tensor) -> Tensor:
        for change in self.policy:
            chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < self.p
            images = torch.where(chosen, CHANGES[change](images), images)
        return images

    @torch.no_grad()
    def hear(self, scores: Tensor | Sequence[Tensor], middle: float) -> None:
        """Take note of scores of real pictures; above `middle` they are taken for real."""
        maps = [scores] if isinstance(scores, Tensor) else scores
        surest = torch.stack([(score - middle).sign().flatten(1).mean(1) for score in maps]).mean(0)  # (N,)
        self.heard += torch.stack([surest.sum(), surest.new_full((), len(surest))]).to(self.heard)

    def adapt(self, heard: Tensor) -> None:
        """Move p where it is time to; `heard` is the sum of what all processes heard since the last call."""
        self.heard.zero_()
        self.signs += heard
        due = self.signs[1] >= EVERY
        direction = (self.signs[0] - self.target * self.signs[1]).sign()
        self.p += due * direction * self.signs[1] / self.ramp_images
        self.p.clamp_(0, 1)
        self.signs *= ~due


def attach(discriminator: nn.Module, augmentation: DiffAugment) -> None:
    """Let the discriminator see only what comes out of `augmentation`: a hook, so that its weights keep their names."""
    discriminator.diffaugment = augmentation
    discriminator.register_forward_pre_hook(_augmented)


def adaptive(network: nn.Module) -> DiffAugment | None:
    """The adaptive augmentation of a discriminator, if it has one; the network may be wrapped for several processes."""
    parts = (part for part in network.modules() if isinstance(part, DiffAugment) and part.target is not None)
    return next(parts, None)


def _augmented(discriminator: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return discriminator.diffaugment(*inputs)


def colour(images: Tensor) -> Tensor:
    """Brightness by up to a half, then saturation by a factor of 0 to 2, contrast by one of 0.5 to 1.5.

    Stacks of colour pictures are changed picture by picture, alike.
    """
    pictures = images.unflatten(1, (-1, 3 if images.shape[1] % 3 == 0 else 1))  # (N, pictures, 3 or 1, H, W)
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, 1, device=images.device).to(images.dtype)
    pictures = pictures + (brightness - 0.5)
    grey = pictures.mean(2, keepdim=True)
    pictures = grey + (pictures - grey) * (2 * saturation)
    mean = pictures.mean((2, 3, 4), keepdim=True)
    return (mean + (pictures - mean) * (contrast + 0.5)).flatten(1, 2)


def translation(images: Tensor) -> Tensor:
    """Moved by up to an eighth of each side; grey (0) moves in."""
    count, _, height, width = images.shape
    down, right = (_whole(count, -round(side / 8), round(side / 8), images.device) for side in (height, width))
    across, along = round(width / 8), round(height / 8)
    padded = F.pad(images, (across, across, along, along)).permute(0, 2, 3, 1)
    rows = torch.arange(height, device=images.device) + along - down  # (N, H)
    columns = torch.arange(width, device=images.device) + across - right  # (N, W)
    places = torch.arange(count, device=images.device)[:, None, None]
    return padded[places, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor) -> Tensor:
    """A rectangle of half the sides becomes grey (0); its middle is anywhere, so part of it may lie outside."""
    count, _, height, width = images.shape
    inside = []
    for side in (height, width):
        start = _whole(count, -(side // 4), side - side // 4, images.device)  # (N, 1)
        place = torch.arange(side, device=images.device)
        inside.append((place >= start) & (place < start + side // 2))  # (N, side)
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hole, 0)


CHANGES = {"colour": colour, "translation": translation, "cutout": cutout}


def _whole(count: int, low: int, high: int, device: torch.device) -> Tensor:
    """(count, 1) whole numbers from low to high."""
    return torch.randint(low, high + 1, (count, 1), device=device)
