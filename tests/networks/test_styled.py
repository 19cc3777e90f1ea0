"""What holds for every generator of content and style."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from cyclegan.networks import GENERATORS, build_generator
from cyclegan.networks.backbones import new_backbone
from cyclegan.networks.initialize import initialize
from cyclegan.networks.styled import StyledGenerator

NAMES = sorted(name for name, kind in GENERATORS.items() if issubclass(kind, StyledGenerator))
SMALL = {"linear": {"matrix": 4}, "variational": {"size": 8, "width": 4}}


@pytest.fixture(params=NAMES)
def generator(request: pytest.FixtureRequest) -> StyledGenerator:
    torch.manual_seed(0)
    architecture = {"name": request.param, "layer": "relu2_1", **SMALL.get(request.param, {})}
    return initialize(build_generator(architecture), "kaiming").eval()


def picture(seed: int, side: int = 32, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def test_a_kept_style_is_the_same_as_a_given_one(generator: StyledGenerator):
    contents, style = picture(0, count=2), 0.3 * picture(1, side=40)
    before = generator(contents)
    generator.take_style([style])
    assert torch.allclose(generator(contents), generator(contents, style), atol=1e-5)
    assert torch.allclose(generator(contents[1:]), generator(contents)[1:], atol=1e-4)  # of each content by itself
    assert (generator(contents) - before).abs().max() > 0.01


@torch.no_grad()
def test_strength_zero_is_the_content_as_the_decoder_shows_it(generator: StyledGenerator):
    features = generator.features(picture(0))
    generator.take_style([picture(1)], strength=0.0)
    assert torch.allclose(generator(picture(0)), generator.decoded(features).clamp(-1, 1), atol=1e-5)


@torch.no_grad()
def test_several_styles_are_a_mean_of_their_codes_by_weight(generator: StyledGenerator):
    one, two = picture(1), 0.3 * picture(2, side=40)
    generator.take_style([one, two], [3.0, 1.0])
    for kept, a, b in zip(generator.kept(), generator.code(one), generator.code(two), strict=True):
        assert torch.allclose(kept, 0.75 * a + 0.25 * b, atol=1e-5)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0]])
def test_weights_that_are_no_shares_are_refused(generator: StyledGenerator, weights: list[float]):
    with pytest.raises(ValueError, match="weights: one, at least 0 and finite, for each of 2 styles"):
        generator.take_style([picture(1), picture(2)], weights)


@torch.no_grad()
def test_regions_are_painted_each_in_its_style(generator: StyledGenerator):
    features = generator.features(picture(0))
    codes = [generator.code(picture(1)), generator.code(0.3 * picture(2))]
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1
    generator.decoder = torch.nn.Identity()  # of what is decoded, without the decoder's look around
    found = generator.paint(features, codes, [left, 1 - left])
    one, two = (generator.paint(features, [code]) for code in codes)
    half = features.shape[3] // 2
    assert torch.allclose(found[..., :half], one[..., :half]) and torch.allclose(found[..., half:], two[..., half:])
    assert (one - two).abs().max() > 0.01


def test_the_encoder_is_in_the_file_and_nothing_trains_it(generator: StyledGenerator, tmp_path):
    state = generator.state_dict()
    assert "encoder.parts.0.weight" in state and not any(
        n.startswith("encoder") for n, _ in generator.named_parameters()
    )
    published = new_backbone("vgg19", ["relu3_1"], persistent=True)
    torch.save(published.parts.state_dict(prefix="features."), tmp_path / "vgg.pth")
    backbone = generator.load_encoder(["relu1_1"], tmp_path / "vgg.pth")
    assert sorted(backbone.layers) == ["relu1_1", "relu2_1"]
    for place in ("0", "2", "5"):
        for mine in (generator.encoder, backbone):
            assert torch.equal(mine.parts[int(place)].weight, published.parts[int(place)].weight)


def test_styles_seen_in_training_are_averaged(generator: StyledGenerator):
    generator.train()
    with torch.no_grad():
        for seed in range(3):
            generator(picture(9), picture(seed), learning=True)
        codes = [generator.code(picture(seed)) for seed in range(3)]
        for kept, *values in zip(generator.kept(), *codes, strict=True):
            assert torch.allclose(kept, torch.stack(values).mean(0), atol=1e-5)
        generator.eval()(picture(9), picture(7), learning=True)
    assert generator.seen.item() == 3


@torch.no_grad()
def test_fresh_layers_get_numbers_around_one_whatever_the_encoders_weights(generator: StyledGenerator, tmp_path: Path):
    network = torchvision.models.vgg19(init_weights=False)
    for module in network.features:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    network.features[0].weight *= 300
    torch.save(network.features.state_dict(prefix="features."), tmp_path / "vgg.pth")
    generator.load_encoder(["relu1_1"], tmp_path / "vgg.pth")
    smooth = torch.nn.functional.interpolate(picture(3, side=8), 64, mode="bicubic").clamp(-1, 1)
    assert generator.features(smooth).std() > 50
    assert 0.3 < (generator.features(smooth) / generator.scale).std() < 3
