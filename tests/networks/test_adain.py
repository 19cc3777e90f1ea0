from __future__ import annotations

import pytest
import torch
from torch import nn

from cyclegan.inference.tiling.tiles import Tiling, TilingError, translate_tiled
from cyclegan.networks import build_generator
from cyclegan.networks.adain import AdainGenerator, statistics
from cyclegan.networks.initialize import initialize


@pytest.fixture
def generator() -> AdainGenerator:
    torch.manual_seed(0)
    return initialize(build_generator({"name": "adain", "layer": "relu2_1"}), "kaiming")


def picture(seed: int, side: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_features_take_on_the_statistics_that_they_are_given(generator: AdainGenerator):
    content, style = torch.randn(2, 3, 5, 6), 4 + 2 * torch.randn(2, 3, 7, 4)
    made = generator.restyled(content, statistics(style))
    for found, wanted in zip(statistics(made), statistics(style), strict=True):
        assert torch.allclose(found, wanted, atol=1e-3)
    assert torch.allclose(statistics(style)[1][..., 0, 0], style.flatten(2).std(2, unbiased=False), atol=1e-4)
    by_hand = torch.tensor([[[[1.0, 3.0]]]])  # mean 2, deviation 1
    assert torch.allclose(
        generator.restyled(by_hand, (torch.tensor(10.0), torch.tensor(5.0))), torch.tensor([5.0, 15.0]), atol=1e-3
    )


def test_half_precision_holds_deviations_whose_squares_it_does_not():
    features = 1000 + 400 * torch.randn(1, 3, 20, 20)
    found = statistics(features.half())
    assert all(value.dtype == torch.float16 for value in found)
    for half, exact in zip(found, statistics(features), strict=True):
        assert torch.allclose(half.float(), exact, rtol=2e-3)


def test_the_papers_decoder_mirrors_the_encoder():
    with torch.device("meta"):
        generator = build_generator({"name": "adain"})
        assert generator(torch.empty(1, 3, 64, 72)).shape == (1, 3, 64, 72)
    convolutions = [m for m in generator.decoder if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [256, 256, 256, 256, 128, 128, 64, 64, 3]
    assert generator.multiple == 8 and sum(isinstance(m, nn.Upsample) for m in generator.decoder) == 3


def test_strength_goes_from_the_contents_own_features_to_the_style(generator: AdainGenerator):
    features, code = generator.features(picture(0)), generator.code(picture(1))
    for strength, expected in ((0.0, features), (1.0, generator.restyled(features, code))):
        generator.take_style(strength=strength)
        assert torch.allclose(generator.paint(features, [code]), generator.decoded(expected).clamp(-1, 1), atol=1e-5)
    with pytest.raises(ValueError, match="strength: 0 to 1 expected, found 2"):
        generator.take_style(strength=2)


def test_tiles_share_the_statistics_of_the_whole(generator: AdainGenerator):
    generator.eval().take_style([picture(1)])
    smooth = nn.functional.interpolate(picture(2, side=6), (160, 160), mode="bicubic").clamp(-1, 1)
    pixels = ((smooth[0].permute(1, 2, 0) + 1) / 2).numpy()
    whole = (generator(smooth).detach()[0].permute(1, 2, 0).numpy() + 1) / 2
    tiling = Tiling("thumbnail", above=1, side=96, overlap=48, thumbnail=160)
    assert abs(translate_tiled(generator, pixels, tiling) - 65535 * whole).mean() < 0.02 * 65535
    with pytest.raises(TilingError, match="take statistics from a thumbnail"):
        translate_tiled(generator, pixels, Tiling("exact", above=1, side=96))
