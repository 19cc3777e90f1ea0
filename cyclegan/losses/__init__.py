"""Losses as pure functions: tensors in, a scalar tensor out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Unconstrained = Literal["lsgan", "vanilla", "nonsaturating", "hinge"]  # of any critic; the others want a bounded one
Adversarial = Literal["lsgan", "vanilla", "nonsaturating", "hinge", "wgan", "wgan-gp"]
Scores = Tensor | Sequence[Tensor]  # of one discriminator, or a map for each of its parts: their losses add up
MIDDLE = {"lsgan": 0.5, "vanilla": 0.0, "nonsaturating": 0.0, "hinge": 0.0}  # scores above are taken for real


def gan_loss(score: Scores, kind: Adversarial = "lsgan") -> Tensor:
    """What a generator minimises, given a discriminator's scores of its pictures.

    lsgan: least squares (Mao et al. 2017, equation 9); vanilla and nonsaturating: -log D (Goodfellow et al. 2014,
    section 3; the reference's `vanilla` is this one too); hinge, wgan, wgan-gp: minus the score.
    """
    if not isinstance(score, Tensor):
        return torch.stack([gan_loss(part, kind) for part in score]).sum()
    score = precise(score)
    if kind == "lsgan":
        return (score - 1).square().mean()
    if kind in ("vanilla", "nonsaturating"):
        return F.softplus(-score).mean()
    return -score.mean()


def critic_loss(real: Scores, fake: Scores, kind: Adversarial = "lsgan") -> Tensor:
    """What a discriminator minimises, given its scores of real and of generated pictures: the mean of both halves."""
    if not isinstance(real, Tensor):
        return torch.stack([critic_loss(*parts, kind) for parts in zip(real, fake, strict=True)]).sum()
    real, fake = precise(real), precise(fake)
    if kind == "lsgan":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if kind in ("vanilla", "nonsaturating"):
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (fake.mean() - real.mean())


def precise(x: Tensor) -> Tensor:
    """At least float32: autocast leaves scores in half precision, whose means are worth two or three digits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def gradient_penalty(critic: Callable[[Tensor], Scores], real: Tensor, fake: Tensor) -> Tensor:
    """Mean of (|gradient| - 1)^2 at random points between real and fake (Gulrajani et al. 2017, equation 3)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(_added_up(critic(between)), between, create_graph=True)
    return ((gradient.flatten(1).square().sum(1) + 1e-16).sqrt() - 1).square().mean()


def patch_nce(query: Tensor, key: Tensor, temperature: float = 0.07, across: bool = False) -> Tensor:
    """Each place of the query must be known again among those of the key (Park et al. 2020, equations 2 and 3).

    Args:
        query: (N, places, C) what the output shows at some places
        key: (N, places, C) what the input shows there; a constant, to which no gradient goes
        temperature: of the softmax over cosines
        across: the other places of all N pictures are negatives, not only those of the same picture
    """
    query, key = F.normalize(query, dim=2), F.normalize(key.detach(), dim=2)
    if across:
        query, key = query.flatten(0, 1)[None], key.flatten(0, 1)[None]
    logits = query @ key.transpose(1, 2) / temperature  # (N, places, places): the right answer is the diagonal
    right = torch.arange(logits.shape[1], device=logits.device).repeat(len(logits))
    return F.cross_entropy(logits.flatten(0, 1), right)


def r1_penalty(critic: Callable[[Tensor], Scores], real: Tensor) -> Tensor:
    """Mean over real pictures of half the squared gradient of their score (Mescheder et al. 2018, equation 9).

    Of a map of P scores, half the squared gradient of their sum divided by P: as much as the mean of each score's own
    where their gradients don't correlate, so a weight means the same for any size of picture.
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(_added_up(critic(real), even=True), real, create_graph=True)
    return 0.5 * gradient.square().sum((1, 2, 3)).mean()


def _added_up(scores: Scores, even: bool = False) -> Tensor:
    """The sum of all scores; `even`: those of a map divided by the root of their number."""
    maps = [scores] if isinstance(scores, Tensor) else scores
    return torch.stack([precise(part).sum() / (part[0].numel() ** 0.5 if even else 1) for part in maps]).sum()


def l1_loss(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference; inside the (N, 1, H, W) mask, where there is one."""
    if mask is None:
        return F.l1_loss(output, target)
    return (mask * (output - target).abs()).sum() / (mask.sum() * output.shape[1]).clamp(min=1)


def within(mask: Tensor | None, image: Tensor, background: Tensor) -> Tensor:
    """The image where the (N, 1, H, W) mask is 1, exactly the background where it is 0."""
    return image if mask is None else mask * image + (1 - mask) * background
