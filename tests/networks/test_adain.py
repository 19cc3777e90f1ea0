from __future__ import annotations

import pytest
import torch
from torch import nn

from cyclegan.inference.tiles import Tiling, TilingError, translate_tiled
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
    made = generator.adapted(content, *statistics(style))
    for found, wanted in zip(statistics(made), statistics(style), strict=True):
        assert torch.allclose(found, wanted, atol=1e-3)
    assert torch.allclose(statistics(style)[1][..., 0, 0], style.flatten(2).std(2, unbiased=False), atol=1e-4)
    by_hand = torch.tensor([[[[1.0, 3.0]]]])  # mean 2, deviation 1
    assert torch.allclose(
        generator.adapted(by_hand, torch.tensor(10.0), torch.tensor(5.0)), torch.tensor([5.0, 15.0]), atol=1e-3
    )


def test_the_papers_decoder_mirrors_the_encoder():
    with torch.device("meta"):
        generator = build_generator({"name": "adain"})
        assert generator(torch.empty(1, 3, 64, 72)).shape == (1, 3, 64, 72)
    convolutions = [m for m in generator.decoder if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [256, 256, 256, 256, 128, 128, 64, 64, 3]
    assert generator.multiple == 8 and sum(isinstance(m, nn.Upsample) for m in generator.decoder) == 3


def test_the_encoder_is_in_the_file_and_nothing_trains_it(generator: AdainGenerator):
    assert "encoder.features.0.weight" in generator.state_dict() and "encoder.mean" in generator.state_dict()
    assert all(name.startswith("decoder") for name, _ in generator.named_parameters())


def test_a_kept_style_is_the_same_as_a_given_one(generator: AdainGenerator):
    generator.eval()
    content, one, two = picture(0), picture(1), 0.3 * picture(2, side=40)
    generator.take_style([one])
    assert torch.allclose(generator(content), generator(content, one)[0].clamp(-1, 1), atol=1e-5)
    generator.take_style([one, two], [3.0, 1.0])
    mean, deviation = (
        0.75 * a + 0.25 * b
        for a, b in zip(*(statistics(generator.encoder(p)["relu2_1"]) for p in (one, two)), strict=True)
    )
    assert torch.allclose(generator.style_mean, mean, atol=1e-5)
    assert torch.allclose(generator.style_deviation, deviation, atol=1e-5)


def test_strength_goes_from_the_contents_own_features_to_the_style(generator: AdainGenerator):
    features = generator.encoder(picture(0))["relu2_1"]
    mean, deviation = statistics(generator.encoder(picture(1))["relu2_1"])
    for strength, expected in ((0.0, features), (1.0, generator.adapted(features, mean, deviation))):
        generator.take_style(strength=strength)
        assert torch.allclose(generator.blended(features, mean, deviation), expected, atol=1e-5)
    with pytest.raises(ValueError, match="strength: 0 to 1 expected, found 2"):
        generator.take_style(strength=2)


def test_styles_seen_in_training_are_averaged(generator: AdainGenerator):
    generator.train()
    for seed in range(3):
        generator(picture(9), picture(seed))
    means = torch.stack([statistics(generator.encoder(picture(seed))["relu2_1"])[0] for seed in range(3)])
    assert torch.allclose(generator.style_mean, means.mean(0), atol=1e-5)
    generator.eval()(picture(9), picture(7))
    assert generator.seen.item() == 3


def test_tiles_share_the_statistics_of_the_whole(generator: AdainGenerator):
    generator.eval().take_style([picture(1)])
    smooth = nn.functional.interpolate(picture(2, side=6), (160, 160), mode="bicubic").clamp(-1, 1)
    pixels = ((smooth[0].permute(1, 2, 0) + 1) / 2).numpy()
    whole = (generator(smooth).detach()[0].permute(1, 2, 0).numpy() + 1) / 2
    tiling = Tiling("thumbnail", above=1, side=96, overlap=48, thumbnail=160)
    assert abs(translate_tiled(generator, pixels, tiling) - 65535 * whole).mean() < 0.02 * 65535
    with pytest.raises(TilingError, match="take statistics from a thumbnail"):
        translate_tiled(generator, pixels, Tiling("exact", above=1, side=96))
