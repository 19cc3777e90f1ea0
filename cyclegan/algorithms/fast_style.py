"""Fast style transfer (Johnson et al. 2016, arXiv 1603.08155): learn once what is else optimised for each picture."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from cyclegan.algorithms import Algorithm, Terms, new_generator
from cyclegan.config import Config, ConfigError, Folder
from cyclegan.data.images import read_image, to_tensor
from cyclegan.losses.structure import total_variation
from cyclegan.losses.style import SAMPLED, Kernel, Style, content_loss, describe_layers, style_loss
from cyclegan.networks.backbones import SMALLEST, BackboneName, Pooling, default_layers, load_backbone

PAPERS = (["relu2_2"], ["relu1_2", "relu2_2", "relu3_3", "relu4_3"])  # of vgg16: content, style


class FastStyle(Algorithm):
    """One generator, from pictures (domain A) to the same in a style; equation 5, without any discriminator.

    Args:
        style: a picture, whose style it learns; null takes the pictures of domain B, whichever a batch holds
        style_size: pixels of that picture's longer side
        content: weight of the content's features
        beta: weight of the style
        tv: weight of total variation
        kernel: how styles are compared: gram (the paper's), linear, polynomial, gaussian or statistics
        relative: divide each layer's loss by what an empty picture would score; false: equations 1 and 4 of Gatys
        backbone: vgg16 (the paper's), vgg19, alexnet, googlenet, squeezenet or effnet-lite0
        weights: its file, where it is not found or downloaded; random: none, for tests only
        pooling: max as trained, or average
        content_layers: weight by layer; null: the paper's of vgg16, the usual ones of others
        style_layers: the same for style
    """

    def __init__(
        self,
        config: Config,
        style: Folder | None = None,
        style_size: PositiveInt = 256,
        content: NonNegativeFloat = 1.0,
        beta: NonNegativeFloat = 10.0,
        tv: NonNegativeFloat = 0.0,
        kernel: Kernel = "gram",
        relative: bool = True,
        backbone: BackboneName = "vgg16",
        weights: str | None = None,
        pooling: Pooling = "max",
        content_layers: dict[str, NonNegativeFloat] | None = None,
        style_layers: dict[str, NonNegativeFloat] | None = None,
    ):
        super().__init__()
        usual = PAPERS if backbone == "vgg16" else default_layers(backbone)
        self.content_layers, self.style_layers = (
            {name: 1 / len(names) for name in names} if given is None else given
            for given, names in zip((content_layers, style_layers), usual, strict=True)
        )
        if not (self.content_layers and self.style_layers):
            raise ConfigError("algorithm: content_layers and style_layers need at least one layer each")
        self.content, self.beta, self.tv, self.kernel, self.relative = content, beta, tv, kernel, relative
        self.G = new_generator(config, "A", "B")
        self.backbone = load_backbone(backbone, [*{**self.content_layers, **self.style_layers}], pooling, weights)
        self.picture = None if style is None else _read(style, style_size, config.data.B.background)
        self.described: dict[str, Style] | None = None

    def trained(self) -> dict[str, list[torch.nn.Module]]:
        return {"generators": [self.G]}

    def generators(self) -> dict[str, torch.nn.Module]:
        return {"AtoB": self.G}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        real = batch["A"]
        batch["fake_B"] = fake = self.G(real)[..., : real.shape[2], : real.shape[3]]
        with torch.no_grad():
            content, style = self.backbone(real), self._style(batch["B"])
        found = self.backbone(fake)
        kept = [
            weight * content_loss(found[name], content[name], self.relative)
            for name, weight in self.content_layers.items()
        ]
        painted = describe_layers(found, self.style_layers, self.kernel)
        terms = {
            "content_B": self.content * torch.stack(kept).sum(0).mean(),
            "style_B": self.beta * style_loss(painted, style, self.style_layers, self.relative).mean(),
        }
        if self.tv:
            terms["smoothness_B"] = self.tv * total_variation(fake).mean()
        yield "generators", terms

    def _style(self, pictures: Tensor) -> dict[str, Style]:
        """Of the one picture, once unless the kernel draws places; or of those of domain B."""
        if self.picture is None:
            return describe_layers(self.backbone(pictures), self.style_layers, self.kernel)
        if self.described is None or self.kernel in SAMPLED:
            features = self.backbone(self.picture.to(pictures))
            self.described = describe_layers(features, self.style_layers, self.kernel)
        return self.described


def _read(path: Folder, longest: int, background: str) -> Tensor:
    """(1, 3, h, w) in [-1, 1]."""
    try:
        picture = to_tensor(read_image(path, background=background))[None]
    except (OSError, ValueError) as error:
        raise ConfigError(f"algorithm.style: {error}") from None
    share = longest / max(picture.shape[2:])
    size = [round(side * share) for side in picture.shape[2:]]
    if min(size) < SMALLEST:
        raise ConfigError(
            f"algorithm.style: {path} has {size[1]}x{size[0]} pixels at style_size {longest}; "
            f"sides of at least {SMALLEST} expected, for deep layers: take a larger style_size, or cut the picture"
        )
    return torch.nn.functional.interpolate(picture, size, mode="bicubic", antialias=True).clamp(-1, 1)
