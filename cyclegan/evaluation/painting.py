"""Content and style loss of painted pictures: what neural style minimises, in figures (Gatys et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.losses.style import Style, content_loss, describe_layers, style_loss
from cyclegan.networks.backbones import RANDOM, SMALLEST, BackboneName, default_layers, load_backbone


class PaintingLosses:
    """Both losses on a backbone's usual layers in equal shares, with Gram matrices: as `cyclegan stylize` has them.

    Relative to an empty picture, so that 0 is the content (or the style) itself, whatever the network and size.

    Args:
        name: of the backbone
        weights: its file, see `load_backbone`
        device: where to compute
    """

    def __init__(self, name: BackboneName, weights: Path | str | None = None, device: torch.device | str = "cpu"):
        self.name, self.device = f"{name}-random" if weights == RANDOM else name, device
        self.content_layers, style = default_layers(name)
        self.style_layers = {layer: 1 / len(style) for layer in style}
        layers = [*dict.fromkeys([*self.content_layers, *style])]
        self.backbone = load_backbone(name, layers, weights=weights).to(device)

    def style(self, pictures: Iterable[Tensor]) -> dict[str, Style]:
        """Of pictures (1, 3, h, w) in [-1, 1] as one style: the mean of their Gram matrices."""
        found = [describe_layers(self._features(picture), self.style_layers, "gram") for picture in pictures]
        return {name: Style("gram", torch.stack([one[name].values for one in found]).mean(0)) for name in found[0]}

    def __call__(self, result: Tensor, content: Tensor, style: dict[str, Style]) -> tuple[Tensor, Tensor]:
        """Content and style loss, (N,) each, of pictures (N, 3, h, w) in [-1, 1]."""
        if min(result.shape[2:]) < SMALLEST:
            raise EvaluationError(
                f"content and style loss need sides of {SMALLEST} pixels, found {tuple(result.shape[2:])}"
            )
        found, wanted = self._features(result), self._features(content)
        kept = [content_loss(found[name], wanted[name], relative=True) for name in self.content_layers]
        own = describe_layers(found, self.style_layers, "gram")
        return torch.stack(kept).mean(0), style_loss(own, style, self.style_layers, relative=True)

    @torch.no_grad()
    def _features(self, pictures: Tensor) -> dict[str, Tensor]:
        return self.backbone(pictures.to(self.device))
