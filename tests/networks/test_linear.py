from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cyclegan.inference.tiling.tiles import Tiling, translate_tiled
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from cyclegan.networks.linear import LinearGenerator, MatrixBranch


@pytest.fixture
def generator() -> LinearGenerator:
    torch.manual_seed(0)
    return initialize(build_generator({"name": "linear", "layer": "relu2_1", "matrix": 4}), "kaiming").eval()


def picture(seed: int, side: int = 32, count: int = 1) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def slow_matrix(branch: MatrixBranch, features: Tensor) -> Tensor:
    """Of one picture's features (C, h, w): products place by place."""
    centred = features - features.mean((1, 2), keepdim=True)
    x = branch.convolutions(centred[None] / 10)[0]
    total = torch.zeros(len(x), len(x))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            total += torch.outer(x[:, row, column], x[:, row, column])
    return branch.linear((total / (x.shape[1] * x.shape[2])).flatten()).reshape(len(x), len(x))


@torch.no_grad()
def test_the_transformation_is_the_papers_place_by_place(generator: LinearGenerator):
    torch.manual_seed(1)
    content, style = torch.randn(2, 128, 5, 6) * 8, 3 + torch.randn(2, 128, 4, 7) * 8
    generator.scale.fill_(10)
    generator.features = lambda _: style
    found = generator.restyled(content, generator.code(style))
    compress, uncompress = generator.compress, generator.uncompress
    for number in range(2):
        transformation = slow_matrix(generator.style_branch, style[number]) @ slow_matrix(
            generator.content_branch, content[number]
        )
        for row, column in ((0, 0), (3, 2), (4, 5)):
            x = content[number, :, row, column] - content[number].mean((1, 2))
            x = transformation @ (compress.weight[:, :, 0, 0] @ x + compress.bias)
            x = uncompress.weight[:, :, 0, 0] @ x + uncompress.bias + style[number].mean((1, 2))
            assert torch.allclose(found[number, :, row, column], x, rtol=1e-3, atol=1e-2)


@torch.no_grad()
def test_half_precision_holds_the_products_of_many_places(generator: LinearGenerator):
    branch = generator.style_branch
    for convolution in branch.convolutions[::2]:
        convolution.weight.zero_()
    branch.convolutions[-1].bias.copy_(torch.tensor([5.0, -6.0, 0.125, 1.0]))  # squares of 64 * 64 places: up to 147456
    features = torch.zeros(1, 128, 64, 64)
    exact = branch(features)
    assert torch.allclose(branch.half()(features.half()).float(), exact, atol=0.01 * exact.abs().max())


@torch.no_grad()
def test_it_starts_as_a_projection_with_the_means_of_the_style(generator: LinearGenerator):
    generator.start_as_identity()
    content, mean = torch.randn(1, 128, 6, 6), torch.randn(1, 128, 1, 1)
    matrix = generator.style_branch(content)
    assert torch.equal(matrix, torch.eye(4)[None])
    once = generator.restyled(content, (matrix, mean))
    assert torch.allclose(once.mean((2, 3), keepdim=True), mean, atol=1e-5)
    assert torch.allclose(generator.restyled(once, (matrix, mean)), once, atol=1e-4)  # projecting again changes nothing
    assert (once - mean).norm() < 0.5 * (content - content.mean((2, 3), keepdim=True)).norm()


def test_the_pictures_losses_do_not_reach_the_decoder_and_the_plain_ones_nothing_else(generator: LinearGenerator):
    parameters = dict(generator.named_parameters())
    fake, plain = generator(picture(0), picture(1), learning=True)
    assert torch.allclose(fake.clamp(-1, 1), generator(picture(0), picture(1)), atol=1e-5)
    for shown, expected in ((fake, False), (plain, True)):
        gradients = torch.autograd.grad(shown.square().sum(), list(parameters.values()), allow_unused=True)
        reached = {name for name, value in zip(parameters, gradients, strict=True) if value is not None}
        assert reached == {name for name in parameters if name.startswith("decoder") == expected}


@torch.no_grad()
def test_tiles_take_the_contents_means_and_matrix_from_the_whole(generator: LinearGenerator):
    generator.start_as_identity()
    torch.nn.init.normal_(generator.content_branch.linear.weight, std=0.5)
    generator.take_style([picture(1)])
    ramp = torch.linspace(-1, 1, 160)
    smooth = torch.stack([ramp.expand(160, 160), ramp[:, None].expand(160, 160), -ramp.expand(160, 160)])[None]
    pixels = ((smooth[0].permute(1, 2, 0) + 1) / 2).numpy()
    whole = (generator(smooth)[0].permute(1, 2, 0).numpy() + 1) / 2
    tiling = Tiling("thumbnail", above=1, side=96, overlap=48, thumbnail=160)
    assert abs(translate_tiled(generator, pixels, tiling) / 65535 - whole).mean() < 1e-4
