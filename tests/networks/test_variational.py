from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from cyclegan.networks.variational import VariationalGenerator


@pytest.fixture
def generator() -> VariationalGenerator:
    torch.manual_seed(0)
    architecture = {"name": "variational", "layer": "relu2_1", "size": 8, "width": 4}
    return initialize(build_generator(architecture), "kaiming").eval()


def picture(seed: int, height: int = 32, width: int = 32, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def test_features_take_on_the_statistics_that_the_style_gives(generator: VariationalGenerator):
    features, style = generator.features(picture(0, count=2)), torch.randn(2, 8)
    made = generator.restyled(features, (style,))
    mean, deviation = generator.statistics(style).chunk(2, 1)
    assert torch.allclose(made.mean((2, 3)), mean, atol=1e-3)
    varied = features.flatten(2).std(2) > 0.1  # a channel that is the same everywhere has nothing to scale
    assert varied.sum() > 50
    assert torch.allclose(made.flatten(2).std(2, unbiased=False)[varied], F.softplus(deviation)[varied], rtol=1e-2)


@torch.no_grad()
def test_samples_lie_around_a_style_as_its_distribution_says(generator: VariationalGenerator):
    mean, log_variance = generator.style_encoder(picture(1, 20, 44))
    (drawn,) = generator.around(picture(1, 20, 44), 4000, torch.Generator().manual_seed(0))
    deviation = (log_variance / 2).exp()
    assert torch.allclose(drawn.mean(0), mean[0], atol=0.1 * deviation.max().item())
    assert torch.allclose(drawn.std(0), deviation[0], rtol=0.05)
    assert torch.equal(generator.code(picture(1, 20, 44))[0], mean)
    again = generator.around(picture(1, 20, 44), 4000, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], drawn)


@torch.no_grad()
def test_learning_draws_once_for_each_style_and_gives_it_to_several_contents(generator: VariationalGenerator):
    contents = picture(0).repeat(4, 1, 1, 1)
    made, mean, _, own = generator(contents, picture(1, count=2), learning=True)
    assert torch.allclose(made[:2], made[2:], atol=1e-5) and (made[0] - made[1]).abs().max() > 1e-3
    assert torch.allclose(own, generator.style_encoder(made)[0]) and mean.shape == (2, 8)
    other = generator(contents, picture(1, count=2), learning=True)[0]
    assert (made - other).abs().max() > 1e-3


def test_the_style_is_learnt_through_what_is_drawn_of_it(generator: VariationalGenerator):
    made, *_ = generator(picture(0), picture(1), learning=True)
    made.square().sum().backward()
    for layer in (generator.style_encoder.mean, generator.style_encoder.log_variance):
        assert layer.weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in generator.parameters())


@torch.no_grad()
def test_grey_and_tiny_pictures_have_a_style(generator: VariationalGenerator):
    grey = picture(1)[:, :1]
    assert torch.equal(generator.code(grey)[0], generator.code(grey.repeat(1, 3, 1, 1))[0])
    assert generator.style_encoder(picture(0, 1, 3))[0].shape == (1, 8)
