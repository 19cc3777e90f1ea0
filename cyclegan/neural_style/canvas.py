"""Optimising a picture until its content is one's and its style another's (Gatys et al. 2015 and 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan.inference.colour import brightness_matched, luminance, recoloured, with_luminance
from cyclegan.losses.structure import total_variation
from cyclegan.losses.style import SAMPLED, Style, content_loss, describe, style_loss
from cyclegan.networks.backbones import SMALLEST, Backbone
from cyclegan.neural_style.recipe import Recipe, RecipeError

REDRAW = 25  # steps that look at the same sampled places: L-BFGS wants a function that stays the same
RISE = 1.5  # L-BFGS goes back when the loss is so much above its lowest: without a line search it may jump


@dataclass(frozen=True)
class Best:
    """The lowest loss so far and its picture."""

    loss: float = float("inf")
    canvas: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """A moment on the way: what was minimised before the step, and how the picture looks after it."""

    level: int
    step: int
    losses: dict[str, float]
    lr: float
    picture: Callable[[], Tensor]  # (1, 3, H, W) in [-1, 1], of the level's size


@dataclass(frozen=True)
class Model:
    """A style to follow: (1, 3, h, w) in [-1, 1]; how much; where in the content, and where in itself (None: all).

    Masks are (1, 1, h, w) of any size: bool, or numbers from 0 to 1.
    """

    picture: Tensor
    weight: float = 1.0
    mask: Tensor | None = None
    own_mask: Tensor | None = None

    def __post_init__(self):
        if not 0 <= self.weight < inf:
            raise RecipeError(f"style weights: expected at least 0 and finite, found {self.weight}")


@torch.inference_mode(False)
@torch.enable_grad()  # painting needs gradients, whoever calls
def stylize(
    content: Tensor,
    styles: Tensor | Sequence[Tensor | Model],
    recipe: Recipe | None = None,
    backbone: Backbone | None = None,
    watch: Callable[[Step], None] | None = None,
) -> Tensor:
    """The content painted in a style: (1, 3, H, W) in [-1, 1], as large as the content and on its device.

    Args:
        content: (1, 3, H, W) in [-1, 1]
        styles: one picture like it, of any size, or several, as they are or with weights and masks
        recipe: everything else; Recipe() if not given
        backbone: the recipe's, where it has been loaded before
        watch: called after every step

    Raises RecipeError, WeightsError and MissingPackageError.
    """
    recipe = recipe or Recipe()
    models = [s if isinstance(s, Model) else Model(s) for s in ([styles] if isinstance(styles, Tensor) else styles)]
    _check(content, models, recipe)
    content = content.detach()
    backbone = (backbone or recipe.load_backbone()).to(content.device, content.dtype)
    noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(recipe.seed)).to(content) * 2 - 1
    canvas = (1 - recipe.noise) * content + recipe.noise * noise
    for level in range(recipe.levels):
        share = 0.5 ** (recipe.levels - 1 - level)
        size = [max(1, round(side * share)) for side in content.shape[2:]]
        painter = Painter(_resized(content, size), [_scaled(m, size, recipe) for m in models], recipe, backbone)
        canvas = painter.paint(_resized(canvas, size), level, watch)
    return canvas


class Painter:
    """The losses of one picture at one size, and their optimisation.

    Args:
        content: (1, 3, H, W) in [-1, 1]
        models: styles of the size in which they are to be seen, masks of any size
        recipe: the weights, and how to optimise
        backbone: on the content's device
    """

    def __init__(self, content: Tensor, models: Sequence[Model], recipe: Recipe, backbone: Backbone):
        self.content, self.models, self.recipe, self.backbone = content, models, recipe, backbone
        self.content_layers, self.style_layers = recipe.layers()
        self.relative = recipe.normalisation == "relative"
        self.grey = recipe.colour == "luminance"
        self.pictures = [self._coloured(model.picture) for model in models]
        with torch.no_grad():
            found = backbone(self.shown(content))
            self.wanted_content = {name: found[name] for name in self.content_layers}
        self.draw(0)

    def shown(self, picture: Tensor) -> Tensor:
        """What is painted: the picture, or its luminance."""
        return luminance(picture) if self.grey and picture.shape[1] == 3 else picture

    def draw(self, number: int) -> None:
        """What the styles' layers should be; kernels that look at sampled places look at others for each number."""
        self.seed = self.recipe.seed + number
        with torch.no_grad():
            self.wanted_styles = [
                self._styles(self.backbone(picture), model.own_mask)
                for picture, model in zip(self.pictures, self.models, strict=True)
            ]

    def losses(self, canvas: Tensor) -> dict[str, Tensor]:
        """Weighted; their sum is to be minimised."""
        found, recipe = self.backbone(canvas), self.recipe
        terms = {
            "content": recipe.alpha
            * sum(
                weight * content_loss(found[name], self.wanted_content[name], self.relative).sum()
                for name, weight in self.content_layers.items()
            ),
            "style": recipe.beta
            * sum(
                model.weight
                * style_loss(self._styles(found, model.mask), wanted, self.style_layers, self.relative).sum()
                for model, wanted in zip(self.models, self.wanted_styles, strict=True)
            ),
        }
        if recipe.tv:
            terms["tv"] = recipe.tv * total_variation(canvas).sum()
        return terms

    def paint(self, start: Tensor, level: int = 0, watch: Callable[[Step], None] | None = None) -> Tensor:
        """From a picture (1, 3, H, W) to the painted one."""
        canvas = self.shown(start).clone(memory_format=torch.contiguous_format).requires_grad_()
        optimizer, terms = self._optimizer(canvas), {}

        def closure() -> Tensor:
            optimizer.zero_grad()
            losses = self.losses(canvas)
            loss = sum(losses.values())
            loss.backward()
            terms.update({name: float(value.detach()) for name, value in losses.items()})
            return loss.detach()

        schedule, best = self._schedule(optimizer), Best()
        for step in range(self.recipe.steps):
            if step and step % REDRAW == 0 and self.recipe.kernel in SAMPLED:
                self.draw(step // REDRAW)
                optimizer.state.clear()  # another function, with other curvature
                best = Best()
            before, lr = canvas.detach().clone(), optimizer.param_groups[0]["lr"]
            loss = float(optimizer.step(closure))
            if loss < best.loss:
                best = Best(loss, before)
            elif best.canvas is None or (loss != loss and self.recipe.optimizer == "adam"):
                raise RecipeError(f"the loss is {loss} at step {step}: lower lr, or alpha, beta and tv")
            elif self.recipe.optimizer == "lbfgs" and not loss < RISE * best.loss:
                canvas.data.copy_(best.canvas)
                optimizer.state.clear()
                optimizer.param_groups[0]["lr"] = lr / 2
            if schedule:
                schedule.step(*([loss] if self.recipe.schedule == "plateau" else []))
            if self.recipe.optimizer == "adam":
                canvas.data.clamp_(-1, 1)  # L-BFGS would take it for curvature
            if watch:
                watch(Step(level, step, {**terms, "loss": loss}, lr, lambda: self.picture(canvas.detach())))
        return self.picture(canvas.detach() if float(closure()) <= RISE * best.loss else best.canvas)

    def picture(self, canvas: Tensor) -> Tensor:
        return with_luminance(self.content, canvas) if self.grey else canvas.clamp(-1, 1)

    def _coloured(self, picture: Tensor) -> Tensor:
        if self.recipe.colour == "histogram":
            return recoloured(picture, self.content)
        return brightness_matched(picture, self.content) if self.grey else picture

    def _styles(self, features: dict[str, Tensor], mask: Tensor | None) -> dict[str, Style]:
        draw = torch.Generator().manual_seed(self.seed)
        found = {}
        for name in self.style_layers:
            values = features[name]
            # nowhere quite 0, so that a small region is not lost where a layer is coarse
            place = None if mask is None else F.adaptive_avg_pool2d(mask.to(values), values.shape[2:]) + 1e-6
            found[name] = describe(values, self.recipe.kernel, place, self.recipe.places, draw)
        return found

    def _optimizer(self, canvas: Tensor) -> torch.optim.Optimizer:
        lr = self.recipe.lr
        if self.recipe.optimizer == "adam":
            return torch.optim.Adam([canvas], lr or 0.03)
        # One iteration a step: its state goes on, and schedules, curves and pictures get their turn. With a line search
        # it would not go on (torch 2.15). Gradients of single pixels are small: no tolerance may end it.
        return torch.optim.LBFGS([canvas], lr or 1.0, max_iter=1, history_size=20, tolerance_grad=0, tolerance_change=0)

    def _schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
        recipe = self.recipe
        if recipe.schedule == "plateau":
            return torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=recipe.factor, patience=recipe.patience, threshold=1e-3
            )
        if recipe.schedule == "step":
            return torch.optim.lr_scheduler.StepLR(optimizer, recipe.patience, recipe.factor)
        return None


def _check(content: Tensor, models: Sequence[Model], recipe: Recipe) -> None:
    if not models:
        raise RecipeError("styles: at least one picture expected")
    for name, picture in [("content", content), *(("style", model.picture) for model in models)]:
        if picture.ndim != 4 or picture.shape[:2] != (1, 3):
            raise RecipeError(f"{name}: a tensor (1, 3, H, W) expected, found {tuple(picture.shape)}")
    shortest = min(content.shape[2:])
    if shortest < SMALLEST:
        raise RecipeError(f"content: sides of at least {SMALLEST} pixels expected, found {shortest}; enlarge it")
    smallest = shortest * 0.5 ** (recipe.levels - 1)
    if smallest < SMALLEST:
        raise RecipeError(
            f"levels: the coarsest has sides of {smallest:g} pixels, fewer than {SMALLEST}; take fewer or larger sizes"
        )
    for model in models:
        for name, mask in (("mask", model.mask), ("style mask", model.own_mask)):
            if mask is not None and (mask.ndim != 4 or mask.shape[:2] != (1, 1)):
                raise RecipeError(f"{name}: a tensor (1, 1, H, W) expected, found {tuple(mask.shape)}")
            if mask is not None and not mask.sum() > 0:
                raise RecipeError(f"{name}: black all over, so there is nowhere for the style")


def _resized(picture: Tensor, size: Sequence[int]) -> Tensor:
    if list(picture.shape[2:]) == list(size):
        return picture
    return F.interpolate(picture, tuple(size), mode="bicubic", antialias=True).clamp(-1, 1)


def _scaled(model: Model, size: Sequence[int], recipe: Recipe) -> Model:
    """Its picture so large that style_scale holds for a content of this size."""
    share = recipe.style_scale * max(size) / max(model.picture.shape[2:])
    sides = [max(SMALLEST, round(side * share)) for side in model.picture.shape[2:]]
    return Model(_resized(model.picture, sides), model.weight, model.mask, model.own_mask)
