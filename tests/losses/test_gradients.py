"""Gradients of style losses, from pixels or weights through a backbone, held against finite differences."""

from __future__ import annotations

import typing
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, build_algorithm
from cyclegan.config import load_config
from cyclegan.losses.style import Kernel, content_loss, describe_layers, style_loss
from cyclegan.losses.variational import disentanglement, divergence
from cyclegan.networks.backbones import Backbone
from cyclegan.networks.variational import StyleEncoder

WEIGHTS = {"one": 0.3, "two": 0.7}
GENERATORS = {"adain": {}, "linear": {"matrix": 3}, "variational": {"size": 3, "width": 2}}
EVERYTHING = ""  # how names of all parameters begin


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()), nn.MaxPool2d(2)]
    parts += [nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.ReLU())]
    return Backbone(parts, {"one": 0, "two": 2}, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).double()


def pictures(count: int, side: int = 6, seed: int = 0) -> Tensor:
    drawn = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn * 2 - 1


def right(function: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether its gradient is that of finite differences, and not 0."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    return gradient.abs().max() > 1e-6 and torch.autograd.gradcheck(function, x, atol=1e-9)


@pytest.mark.parametrize("relative", [False, True])
def test_content_from_pixels(backbone: Backbone, relative: bool):
    wanted = backbone(pictures(1, seed=1))["two"]
    assert right(lambda x: content_loss(backbone(x)["two"], wanted, relative), pictures(1))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("kernel", typing.get_args(Kernel))
def test_style_from_pixels(backbone: Backbone, kernel: Kernel, relative: bool):
    wanted = describe_layers(backbone(pictures(1, seed=1)), WEIGHTS, kernel)
    assert right(
        lambda x: style_loss(describe_layers(backbone(x), WEIGHTS, kernel), wanted, WEIGHTS, relative), pictures(1)
    )


def test_the_losses_of_a_space_of_styles_from_pixels():
    torch.manual_seed(0)
    encoder = StyleEncoder(2, 3).double()
    assert right(lambda x: divergence(*encoder(x)), pictures(1, 8))
    style = pictures(1, 8)

    def loss(both: Tensor) -> Tensor:  # the first like the style, the second far from both
        first, second = encoder(both)[0].split(1)
        return disentanglement(first, second, encoder(style)[0])

    assert right(loss, torch.cat([0.9 * style, 5 * pictures(1, 8, seed=1)]))


def build(name: str) -> Algorithm:
    torch.manual_seed(0)
    generator = {"name": name, "layer": "relu2_1", **GENERATORS[name]}
    given = {"name": "x", "algorithm": {"name": name, "weights": "random"}, "generator": generator}
    config = load_config({**given, "init": {"name": "kaiming"}, "training": {"batch_size": 2}})
    return build_algorithm(config).double().eval()


@pytest.mark.filterwarnings("ignore:.* has random weights")
@pytest.mark.parametrize(
    ("name", "term", "trained"),
    [
        ("adain", "content_B", EVERYTHING),
        ("adain", "style_B", EVERYTHING),
        ("linear", "content_B", ("compress", "uncompress", "content_branch", "style_branch")),
        ("linear", "style_B", ("compress", "uncompress", "content_branch", "style_branch")),
        ("linear", "reconstruction", EVERYTHING),
        ("variational", "content_B", EVERYTHING),
        ("variational", "style_B", EVERYTHING),
        ("variational", "kl", EVERYTHING),
    ],
)
def test_terms_of_generators_from_their_weights(name: str, term: str, trained: str | tuple[str, ...]):
    algorithm = build(name)
    weights = {key: value for key, value in algorithm.G.named_parameters() if key.startswith(trained)}
    ways = {key: torch.randn_like(value) / value.numel() ** 0.5 for key, value in weights.items()}

    def loss(step: Tensor) -> Tensor:  # all weights move along one line
        torch.manual_seed(0)
        moved = {f"algorithm.G.{key}": value.detach() + step * ways[key] for key, value in weights.items()}
        return torch.func.functional_call(Term(algorithm, term), moved)

    assert right(loss, torch.zeros((), dtype=torch.float64))


class Term(nn.Module):
    def __init__(self, algorithm: Algorithm, name: str):
        super().__init__()
        self.algorithm, self.name = algorithm, name

    def forward(self) -> Tensor:
        ((_, terms),) = self.algorithm.losses({"A": pictures(2, 8), "B": pictures(2, 8, seed=1)})
        return terms[self.name]
