"""Fast style transfer and AdaIN: their losses by hand, their options, and that training serves its purpose."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cyclegan.algorithms import Algorithm, build_algorithm
from cyclegan.config import ConfigError, load_config
from cyclegan.losses.style import Kernel
from cyclegan.networks.pretrained import WeightsError
from tests.algorithms.test_styled import curve_of
from tests.conftest import write_pictures

pytestmark = pytest.mark.filterwarnings("ignore:.* has random weights")
NETWORKS = {
    "fast_style": {"name": "resnet", "width": 4, "blocks": 1},
    "adain": {"name": "adain", "layer": "relu2_1"},
}


def build(name: str, **options) -> Algorithm:
    torch.manual_seed(0)
    if name == "fast_style" and "backbone" not in options:
        options |= {"backbone": "squeezenet", "content_layers": {"fire2": 1.0}, "style_layers": {"relu1": 0.5}}
    options = {"weights": "random", **options}
    config = {"name": "x", "algorithm": {"name": name, **options}, "generator": NETWORKS[name]}
    return build_algorithm(load_config({**config, "init": {"name": "kaiming"}}))


def batch(count: int = 2, side: int = 32) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {domain: torch.rand(count, 3, side, side, generator=draw) * 2 - 1 for domain in "AB"}


@pytest.mark.parametrize("kernel", typing.get_args(Kernel))
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_training_by_style_alone_lowers_it_with_every_kernel(name: str, kernel: str):
    curve = curve_of(build(name, kernel=kernel, content=0), batch(), "style_B")
    assert 0 < curve[-1] < curve[0]


@pytest.mark.parametrize(
    ("name", "option", "term"),
    [("fast_style", "content", "content_B"), ("fast_style", "tv", "smoothness_B"), ("adain", "content", "content_B")],
)
def test_training_by_another_term_alone_lowers_it(name: str, option: str, term: str):
    curve = curve_of(build(name, **{"content": 0, "beta": 0, option: 1}), batch(), term)
    assert 0 < curve[-1] < curve[0]


def test_fast_styles_losses_are_the_papers():
    algorithm = build("fast_style", relative=False, content=3.0, beta=7.0)
    pictures = batch()
    ((_, terms),) = algorithm.losses(dict(pictures))
    found, content, style = (algorithm.backbone(x) for x in (algorithm.G(pictures["A"]), pictures["A"], pictures["B"]))
    expected = 3 * 0.5 * (found["fire2"] - content["fire2"]).square().sum() / 2  # the mean of two pictures
    assert terms["content_B"].item() == pytest.approx(expected.item(), rel=1e-4)
    expected = 0.0
    for one, other in zip(found["relu1"], style["relu1"], strict=True):
        products = [torch.einsum("chw,dhw->cd", x, x) / x[0].numel() for x in (one, other)]
        expected += 7 * 0.5 * (products[0] - products[1]).square().sum().item() / (4 * 64**2) / 2
    assert terms["style_B"].item() == pytest.approx(expected, rel=1e-4)


def test_fast_style_learns_one_picture_whatever_domain_b_holds(tmp_path: Path):
    write_pictures(tmp_path, 1, side=50)
    algorithm = build("fast_style", style=str(tmp_path / "00.png"), style_size=40)
    pictures, values = batch(), []
    for other in (pictures["B"], -pictures["B"]):
        ((_, terms),) = algorithm.losses({"A": pictures["A"], "B": other})
        values.append(terms["style_B"].item())
    assert values[0] == values[1] and algorithm.picture.shape == (1, 3, 40, 40)


def test_a_style_too_narrow_for_deep_layers_is_one_line(tmp_path: Path):
    write_pictures(tmp_path, 1, side=50)
    with pytest.raises(ConfigError, match="has 8x8 pixels at style_size 8; sides of at least 32 expected"):
        build("fast_style", style=str(tmp_path / "00.png"), style_size=8)


def test_adains_losses_are_the_papers():
    algorithm = build("adain", relative=False, beta=7.0).eval()
    pictures = batch()
    with torch.no_grad():
        ((_, terms),) = algorithm.losses(dict(pictures))
        fake, wanted = algorithm.G(pictures["A"], pictures["B"], learning=True)
        found, style, content = (algorithm.backbone(x) for x in (fake, pictures["B"], pictures["A"]))
    own, other = content["relu2_1"], style["relu2_1"]
    by_hand = F.instance_norm(own, eps=1e-5) * (other.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    by_hand = by_hand + other.mean((2, 3), keepdim=True)  # the backbone sees what the encoder sees
    assert torch.allclose(wanted, by_hand, atol=1e-3)
    expected = 0.5 * (found["relu2_1"] - wanted).square().sum() / 2
    assert terms["content_B"].item() == pytest.approx(expected.item(), rel=1e-4)
    expected = 0.0
    for layer in ("relu1_1", "relu2_1"):
        means = [x[layer].mean((2, 3)) for x in (found, style)]
        deviations = [(x[layer].var((2, 3), unbiased=False) + 1e-5).sqrt() for x in (found, style)]
        expected += 0.5 * 7 * (F.mse_loss(*means) + F.mse_loss(*deviations)).item()
    assert terms["style_B"].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": "gone.png"}, r"algorithm\.style: .*gone\.png"),
        ({"backbone": "vgg16", "style_layers": {"relu9": 1.0}}, "algorithm: vgg16 has no layer 'relu9'; choices"),
        ({"kernel": "cosine"}, "algorithm.kernel: .*found 'cosine'"),
        ({"style_layers": {}}, "content_layers and style_layers need at least one"),
    ],
)
def test_wrong_options_are_one_line(options: dict, words: str):
    with pytest.raises(ConfigError, match=words) as error:
        build("fast_style", **{"backbone": "squeezenet", **options})
    assert "\n" not in str(error.value)


def test_adain_wants_its_own_generator_and_weights_that_are_there(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"generator\.name: adain needs its own, adain; found resnet"):
        build_algorithm(load_config({"name": "x", "algorithm": {"name": "adain", "weights": "random"}}))
    with pytest.raises(WeightsError, match=r"no weights file .*gone\.pth"):
        build("adain", weights=str(tmp_path / "gone.pth"))
