"""How a picture is painted: every choice of neural style transfer but the pictures."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from numbers import Integral
from pathlib import Path
from typing import Literal

from cyclegan.errors import UserError
from cyclegan.losses.style import Kernel
from cyclegan.networks.backbones import Backbone, BackboneName, Pooling, default_layers, load_backbone

Normalisation = Literal["relative", "paper"]
OptimizerName = Literal["lbfgs", "adam"]
ScheduleName = Literal["constant", "plateau", "step"]
Colour = Literal["style", "histogram", "luminance"]


class RecipeError(UserError, ValueError):
    """A choice that cannot be; the message names it and what was expected."""


@dataclass(frozen=True)
class Recipe:
    """See docs/style-transfer.md for what each is good for.

    backbone, weights, pooling: the network, its file and its kind of pooling, see `load_backbone`
    content_layers, style_layers: weights by layer; None takes the backbone's usual ones, with weights that add up to 1
    alpha, beta, tv: weights of content, style and total variation
    normalisation: relative: every layer's loss is divided by what an empty picture would score, so that weights mean
        the same for any network, kernel and size; paper: equations 1 and 4 of Gatys et al. as they stand
    kernel, places: how styles are compared, see losses/style.py
    noise: share of noise in the picture to start from; 0 is the content, 1 is noise
    optimizer, steps, lr: lbfgs or adam, at each level; lr None is 1 for lbfgs and 0.03 for adam
    schedule, factor, patience: of lr: constant, plateau (times factor after `patience` steps without improvement) or
        step (times factor every `patience` steps)
    colour: the style's; histogram: the styles are given the content's colours first; luminance: only brightness is
        painted, colours stay the content's but where they clip (both Gatys et al. 2016, arXiv 1606.05897)
    levels: sizes, each twice the one before; the coarse ones decide on large forms at little cost
    style_scale: longer side of the styles, as a share of the content's
    seed: of noise and sampled places
    """

    backbone: BackboneName = "vgg19"
    weights: Path | str | None = None
    pooling: Pooling = "max"
    content_layers: Mapping[str, float] | None = None
    style_layers: Mapping[str, float] | None = None
    alpha: float = 1.0
    beta: float = 10.0
    tv: float = 0.0
    normalisation: Normalisation = "relative"
    kernel: Kernel = "gram"
    places: int = 1024
    noise: float = 0.0
    optimizer: OptimizerName = "lbfgs"
    steps: int = 200
    lr: float | None = None
    schedule: ScheduleName = "constant"
    factor: float = 0.5
    patience: int = 20
    colour: Colour = "style"
    levels: int = 1
    style_scale: float = 1.0
    seed: int = 0

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if vars(self)[name] not in choices:
                raise RecipeError(f"{name}: expected {', '.join(choices)}, found {vars(self)[name]!r}")
        for name in ("alpha", "beta", "tv"):
            _check(self, name, 0 <= vars(self)[name] < inf, "at least 0 and finite")
        for name in ("steps", "levels", "places", "patience"):
            _check(self, name, _whole(vars(self)[name]) and vars(self)[name] >= 1, "a whole number from 1 up")
        _check(self, "seed", _whole(self.seed) and 0 <= self.seed < 2**32, "a whole number from 0 to 4294967295")
        _check(self, "noise", 0 <= self.noise <= 1, "0 to 1")
        _check(self, "factor", 0 < self.factor < 1, "between 0 and 1")
        _check(self, "style_scale", 0 < self.style_scale < inf, "above 0 and finite")
        _check(self, "lr", self.lr is None or 0 < self.lr < inf, "above 0 and finite")
        for name in ("content_layers", "style_layers"):
            weights = vars(self)[name]
            right = weights is None or (weights and all(0 <= weight < inf for weight in weights.values()))
            _check(self, name, right, "a layer or more, with weights that are at least 0 and finite")

    def layers(self) -> tuple[dict[str, float], dict[str, float]]:
        """The weights of content's and style's layers."""
        usual = default_layers(self.backbone)
        given = (self.content_layers, self.style_layers)
        return tuple(
            dict(named) if named is not None else {name: 1 / len(names) for name in names}
            for named, names in zip(given, usual, strict=True)
        )

    def load_backbone(self) -> Backbone:
        """Raises RecipeError, WeightsError and MissingPackageError."""
        content, style = self.layers()
        try:
            return load_backbone(self.backbone, [*{**content, **style}], self.pooling, self.weights)
        except ValueError as error:
            raise RecipeError(str(error)) from None


CHOICES = {
    "backbone": typing.get_args(BackboneName),
    "pooling": typing.get_args(Pooling),
    "normalisation": typing.get_args(Normalisation),
    "kernel": typing.get_args(Kernel),
    "optimizer": typing.get_args(OptimizerName),
    "schedule": typing.get_args(ScheduleName),
    "colour": typing.get_args(Colour),
}


def _whole(value: object) -> bool:
    return isinstance(value, Integral)  # also NumPy's


def _check(recipe: Recipe, name: str, right: bool, expected: str) -> None:
    if not right:
        raise RecipeError(f"{name}: expected {expected}, found {vars(recipe)[name]}")
