"""Terms that any algorithm may have: each compares a translation with its picture, or asks something of it alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from cyclegan.config import ConfigError, ContentTerms
from cyclegan.evaluation.perceptual import lpips_from
from cyclegan.losses.structure import edge_agreement, luminance, ms_ssim, ssim, total_variation
from cyclegan.networks.backbones import load_backbone

Term = Callable[[Tensor, Tensor], Tensor]  # picture and translation -> what to minimise


class Content:
    """The weighted terms of a run's `terms` section.

    Args:
        section: weights and settings; networks are loaded for terms with a weight only
        accelerator: for device and precision
        dtype: of the pictures

    Raises WeightsError, MissingPackageError and ConfigError.
    """

    def __init__(self, section: ContentTerms, accelerator: Accelerator, dtype: torch.dtype):
        self.accelerator = accelerator
        makers: dict[str, Callable[[], Term]] = {
            "ssim": lambda: _alike(ssim),
            "ms_ssim": lambda: _alike(ms_ssim),
            "edges": lambda: lambda real, fake: 1 - edge_agreement(real, fake).mean(),
            "tv": lambda: lambda _, fake: total_variation(fake).mean(),
            "vgg": lambda: self._vgg(section, dtype),
            "lpips": lambda: self._lpips(section),
        }
        self.weights = {name: vars(section)[name] for name in makers if vars(section)[name]}
        self.terms = {name: makers[name]() for name in self.weights}

    def __call__(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Weighted terms of (N, C, H, W) pictures and their translations, whose channels may differ in number."""
        fake = fake[..., : real.shape[2], : real.shape[3]]  # sides are rounded up to the generator's multiple
        return {name: weight * self._value(name, real, fake) for name, weight in self.weights.items()}

    def _value(self, name: str, real: Tensor, fake: Tensor) -> Tensor:
        try:
            return self.terms[name](real, fake)
        except ValueError as error:
            raise ConfigError(f"terms.{name}: {error}") from None

    def _vgg(self, section: ContentTerms, dtype: torch.dtype) -> Term:
        try:
            vgg = load_backbone(section.vgg_network, section.vgg_layers, section.vgg_pooling, section.vgg_weights)
        except ValueError as error:
            raise ConfigError(f"terms.vgg_layers: {error}") from None
        vgg.to(self.accelerator.device, dtype)

        def distance(real: Tensor, fake: Tensor) -> Tensor:
            with self.accelerator.autocast():
                with torch.no_grad():
                    wanted = vgg(real)
                found = vgg(fake)
            return torch.stack([F.l1_loss(found[layer].float(), wanted[layer].float()) for layer in wanted]).mean()

        return distance

    def _lpips(self, section: ContentTerms) -> Term:
        if section.lpips_weights is None:
            raise ConfigError(
                "terms.lpips_weights: name torchvision's file of the trunk, e.g. alexnet-owt-7be5be79.pth"
            )
        distance = lpips_from(section.lpips_weights, section.lpips_trunk, self.accelerator.device)
        return lambda real, fake: distance(_colour(real), _colour(fake)).mean()


def _alike(similarity: Callable[[Tensor, Tensor], Tensor]) -> Term:
    def unlike(real: Tensor, fake: Tensor) -> Tensor:
        if real.shape[1] != fake.shape[1]:
            real, fake = luminance(real), luminance(fake)
        return 1 - similarity(real, fake).mean()

    return unlike


def _colour(image: Tensor) -> Tensor:
    return image.expand(-1, 3, -1, -1)
