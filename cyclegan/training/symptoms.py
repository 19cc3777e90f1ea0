"""What the training doctor looks for, as functions of numbers and of pictures."""

from __future__ import annotations

from statistics import median, pstdev

import torch.nn.functional as F
from torch import Tensor

from cyclegan.losses.structure import luminance

WON_LOSS = 0.02  # of a discriminator; in runs that learn it was 0.07 and more, in one that could not 0.01
PINNED = {"lsgan": 0.9, "vanilla": 3.0, "nonsaturating": 3.0, "hinge": 0.9}  # adversarial loss if D is sure of a fake
GROWTH = 20.0  # times the lowest level so far; totals of runs that learn fall, reported explosions were 100-fold
JUMP_SHARE, JUMP_SPREADS = 0.5, 4.0  # both: half of the level, and far outside its own noise


def grows_without_bound(level: float, lowest: float) -> bool:
    """A loss many times its lowest level; not a number counts."""
    return not level <= GROWTH * lowest


def has_won(critic: float, adversarial: float, kind: str) -> bool:
    """A discriminator that errs no more, so that its generator learns nothing from it."""
    return critic < WON_LOSS and adversarial > PINNED[kind]


def jumps(before: list[float], after: list[float]) -> bool:
    """A level that rises by much more than its share and than its noise."""
    rise = median(after) - median(before)
    return rise > JUMP_SHARE * abs(median(before)) and rise > JUMP_SPREADS * pstdev(before)


def contrast_share(real: Tensor, fake: Tensor) -> float:
    """How much a picture is changed, relative to its own contrast: 0 for a copy."""
    real, fake = real.float(), fake.float()
    if real.shape[1] != fake.shape[1]:
        real, fake = luminance(real), luminance(fake)
    contrast = (real - real.mean((2, 3), keepdim=True)).abs().mean((1, 2, 3))
    return ((fake - real).abs().mean((1, 2, 3)) / contrast.clamp(min=1e-3)).median().item()


def brightness_correlation(real: Tensor, fake: Tensor) -> float:
    """Of light and dark areas between input and output; stripes and edges are averaged away."""
    x, y = (F.adaptive_avg_pool2d(luminance(images.float()), 16).flatten(1) for images in (real, fake))
    return F.cosine_similarity(x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)).median().item()


def variety(real: Tensor, fake: Tensor) -> float:
    """How much outputs for different inputs differ, relative to the inputs; 1 where that cannot be said."""
    among_reals, among_fakes = (images.float().std(0, correction=0).mean().item() for images in (real, fake))
    return among_fakes / among_reals if among_reals > 1e-3 else 1.0
