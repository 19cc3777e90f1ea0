"""Neural style on a tiny backbone: what it minimises, that it gets there, and what each choice changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cyclegan.inference.colour import brightness_matched, recoloured, with_luminance
from cyclegan.losses.structure import luminance, total_variation
from cyclegan.losses.style import gram
from cyclegan.networks.backbones import Backbone
from cyclegan.neural_style import Recipe, RecipeError, stylize
from cyclegan.neural_style.canvas import Model, Painter, Step

LAYERS = {"content_layers": {"two": 1.0}, "style_layers": {"one": 0.5, "two": 0.5}}


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh()), nn.AvgPool2d(2)]
    parts += [nn.Sequential(nn.Conv2d(6, 4, 3, padding=1), nn.Tanh())]
    return Backbone(parts, {"one": 0, "two": 2}, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def picture(seed: int, side: int = 32, channels: int = 3) -> Tensor:
    coarse = torch.rand(1, channels, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return nn.functional.interpolate(coarse, (side, side + 8), mode="bilinear")


def recipe(**changes) -> Recipe:
    return Recipe(**{**LAYERS, "steps": 40, **changes})


def run(backbone: Backbone, styles=None, content=None, **changes) -> tuple[Tensor, list[Step]]:
    seen: list[Step] = []
    content = picture(1) if content is None else content
    made = stylize(content, picture(2) if styles is None else styles, recipe(**changes), backbone, seen.append)
    return made, seen


def test_from_noise_it_reaches_the_gram_matrices_of_a_style_that_it_can_match(backbone: Backbone):
    style = picture(2)
    made, seen = run(backbone, style, alpha=0.0, noise=1.0, steps=150)
    assert seen[-1].losses["style"] < 1e-5 * seen[0].losses["style"]
    for layer in ("one", "two"):
        wanted, found = gram(backbone(style)[layer]), gram(backbone(made)[layer])
        assert (found - wanted).abs().max() < 0.06 * wanted.abs().max()
    assert (made - style).abs().mean() > 0.1  # another picture in the same style


def test_with_content_alone_noise_becomes_the_content(backbone: Backbone):
    made, seen = run(backbone, beta=0.0, noise=1.0, content_layers={"one": 1.0}, steps=100)
    assert seen[-1].losses["content"] < 1e-3 * seen[0].losses["content"]
    assert (made - picture(1)).abs().mean() < 0.2


@pytest.mark.parametrize("kernel", ["gram", "linear", "polynomial", "gaussian", "statistics"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_every_kernel_and_optimizer_lowers_the_loss(backbone: Backbone, kernel: str, optimizer: str):
    made, seen = run(backbone, kernel=kernel, optimizer=optimizer, places=200)
    assert seen[-1].losses["loss"] < 0.7 * seen[0].losses["loss"]
    assert made.shape == picture(1).shape and made.abs().max() <= 1


def test_the_papers_normalisation_is_its_equations(backbone: Backbone):
    content, style, canvas = picture(1), picture(2), picture(3)
    painter = Painter(content, [Model(style)], recipe(normalisation="paper", alpha=0.5, beta=7.0, tv=2.0), backbone)
    losses = painter.losses(canvas)
    found, papers = backbone(canvas), 0.0
    for layer in ("one", "two"):
        channels, places = found[layer].shape[1], found[layer][0, 0].numel()
        products = [z.flatten(2)[0] @ z.flatten(2)[0].T for z in (found[layer], backbone(style)[layer])]
        papers += 0.5 * (products[0] - products[1]).square().sum().item() / (4 * channels**2 * places**2)
    assert losses["style"].item() == pytest.approx(7 * papers, rel=1e-4)
    half = 0.5 * (found["two"] - backbone(content)["two"]).square().sum().item()
    assert losses["content"].item() == pytest.approx(0.5 * half, rel=1e-4)
    assert losses["tv"].item() == pytest.approx(2 * total_variation(canvas).item(), rel=1e-5)


def test_start_and_seed(backbone: Backbone):
    starts = {noise: run(backbone, noise=noise, alpha=0, beta=0, steps=1)[0] for noise in (0.0, 0.5, 1.0)}
    assert torch.equal(starts[0.0], picture(1))
    assert torch.allclose(starts[0.5], (starts[0.0] + starts[1.0]) / 2, atol=1e-6)
    assert 0.5 < starts[1.0].std() < 0.65  # uniform in [-1, 1]
    assert torch.equal(run(backbone, noise=0.5, steps=3)[0], run(backbone, noise=0.5, steps=3)[0])
    assert not torch.equal(starts[1.0], run(backbone, noise=1.0, alpha=0, beta=0, steps=1, seed=1)[0])


@pytest.mark.parametrize(("schedule", "expected"), [("step", 0.03 * 0.5**3), ("plateau", None), ("constant", 0.03)])
def test_schedules_of_the_learning_rate(backbone: Backbone, schedule: str, expected: float | None):
    _, seen = run(backbone, optimizer="adam", schedule=schedule, patience=10, tv=0.0)
    rates = [step.lr for step in seen]
    assert rates[0] == 0.03
    if expected:
        assert rates[-1] == pytest.approx(expected)
    _, stuck = run(backbone, optimizer="adam", schedule=schedule, patience=10, alpha=0.0, beta=0.0)
    assert (stuck[-1].lr < 0.03) == (schedule != "constant")


def test_a_mask_keeps_the_style_in_its_region_and_two_styles_apart(backbone: Backbone):
    left = torch.zeros(1, 1, 32, 40)
    left[..., :20] = 1
    made, _ = run(backbone, [Model(picture(2), mask=left)], alpha=0.0)
    changed = (made - picture(1)).abs().mean((0, 1, 2))
    assert changed[:16].mean() > 20 * changed[26:].mean()
    bright, dark = torch.full((1, 3, 32, 32), 0.8), torch.full((1, 3, 32, 32), -0.8)
    both, _ = run(backbone, [Model(bright, mask=left), Model(dark, mask=1 - left)], alpha=0.0)
    assert both[..., :16].mean() - both[..., 24:].mean() > 0.7
    halves = torch.cat([bright, dark], 3)
    only_left = torch.zeros(1, 1, 32, 64)
    only_left[..., :30] = 1
    made, _ = run(backbone, [Model(halves, own_mask=only_left)], alpha=0.0)
    assert made.mean() > 0.4


def test_a_mask_may_be_bool(backbone: Backbone):
    left = picture(3)[:, :1] > 0
    made, expected = (run(backbone, [Model(picture(2), mask=mask)], steps=3)[0] for mask in (left, left.float()))
    assert torch.equal(made, expected)


def test_styles_count_by_their_weights(backbone: Backbone):
    bright, dark = torch.full((1, 3, 32, 32), 0.8), torch.full((1, 3, 32, 32), -0.8)
    means = [
        run(backbone, [Model(bright, share), Model(dark, 1 - share)], alpha=0.0, kernel="linear")[0].mean().item()
        for share in (0.1, 0.5, 0.9)
    ]
    assert means == sorted(means) and means[2] - means[0] > 0.5


def test_pictures_of_any_memory_layout_are_painted(backbone: Backbone):
    content = picture(1).contiguous(memory_format=torch.channels_last)
    assert torch.allclose(run(backbone, content=content, steps=3)[0], run(backbone, steps=3)[0], atol=1e-4)


def test_it_paints_where_nobody_else_wants_gradients_and_gives_none(backbone: Backbone):
    expected, _ = run(backbone, steps=3, colour="luminance")
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(run(backbone, picture(2), picture(1), steps=3, colour="luminance")[0], expected)
    made, _ = run(backbone, picture(2).requires_grad_(), picture(1).requires_grad_() * 1, steps=3, colour="luminance")
    assert torch.equal(made, expected) and not made.requires_grad


def test_lbfgs_goes_back_where_it_jumped_too_far(backbone: Backbone):
    _, seen = run(backbone, lr=40.0, steps=60)
    assert seen[-1].lr < 40 and max(step.losses["loss"] for step in seen) > 1.5 * seen[0].losses["loss"]
    assert seen[-1].losses["loss"] < 0.7 * seen[0].losses["loss"]


def test_a_loss_that_is_no_number_is_refused(backbone: Backbone):
    with pytest.raises(RecipeError, match=r"the loss is (inf|nan) at step 0: lower lr"):
        run(backbone, beta=1e38, normalisation="paper", style_layers={"one": 1e38})


def test_levels_go_from_coarse_to_fine(backbone: Backbone):
    made, seen = run(backbone, content=picture(1, side=64), levels=2, steps=3)
    assert made.shape == (1, 3, 64, 72)
    assert [(step.level, step.step) for step in seen] == [(level, step) for level in (0, 1) for step in range(3)]
    assert seen[0].picture().shape == (1, 3, 32, 36) and torch.equal(seen[-1].picture(), made)


def test_colours_of_the_content_are_kept(backbone: Backbone):
    content, style = picture(1), picture(2) * torch.tensor([1.0, 0.2, 0.1])[:, None, None]
    matched = recoloured(style, 0.3 * content).flatten(2)[0]
    wanted = 0.3 * content.flatten(2)[0]
    assert torch.allclose(matched.mean(1), wanted.mean(1), atol=1e-3)
    assert torch.allclose(matched.cov(), wanted.cov(), atol=2e-3)
    light = brightness_matched(style, 0.5 * content)
    assert light.mean().item() == pytest.approx(luminance(0.5 * content).mean().item(), abs=0.01)
    grey = with_luminance(0.3 * content, torch.full((1, 1, 32, 40), 0.1))
    assert torch.allclose(luminance(grey), torch.tensor(0.1), atol=1e-6)
    assert torch.allclose(grey[:, 0] - grey[:, 1], 0.3 * (content[:, 0] - content[:, 1]), atol=1e-6)

    made, _ = run(backbone, style, 0.3 * content, colour="luminance", tv=0.01, beta=100.0)
    chroma = (made[:, 0] - made[:, 2]) - 0.3 * (content[:, 0] - content[:, 2])
    assert chroma.abs().mean() < 0.02 and (made - 0.3 * content).abs().mean() > 0.005
    run(backbone, style, content, colour="histogram", steps=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "sgd"}, "optimizer: expected lbfgs, adam, found 'sgd'"),
        ({"noise": 2}, "noise: expected 0 to 1, found 2"),
        ({"seed": 2**32}, "seed: expected a whole number from 0 to 4294967295, found 4294967296"),
        ({"steps": 0}, "steps: expected a whole number from 1 up, found 0"),
        ({"steps": 2.0}, "steps: expected a whole number from 1 up, found 2.0"),
        ({"alpha": float("inf")}, "alpha: expected at least 0 and finite, found inf"),
        ({"style_scale": float("inf")}, "style_scale: expected above 0 and finite, found inf"),
        ({"content_layers": {"one": float("nan")}}, "content_layers: expected a layer or more, .* found {'one': nan}"),
        ({"content_layers": {}}, "content_layers: expected a layer or more"),
        ({"style_layers": {"one": -1.0}}, "style_layers: .* at least 0 and finite, found {'one': -1.0}"),
        ({"style_layers": {}}, "style_layers: expected a layer or more"),
        ({"levels": 3}, "levels: the coarsest has sides of 8 pixels"),
    ],
)
def test_what_cannot_be_is_one_line(backbone: Backbone, changes: dict, words: str):
    with pytest.raises(RecipeError, match=words):
        run(backbone, **changes)


def test_wrong_pictures_masks_and_divergence_are_one_line(backbone: Backbone):
    with pytest.raises(RecipeError, match=r"style: a tensor \(1, 3, H, W\) expected, found \(3, 8, 8\)"):
        run(backbone, torch.zeros(3, 8, 8))
    with pytest.raises(RecipeError, match="content: sides of at least 32 pixels expected, found 30; enlarge it"):
        run(backbone, content=torch.zeros(1, 3, 30, 40))
    with pytest.raises(RecipeError, match="mask: black all over"):
        run(backbone, [Model(picture(2), mask=torch.zeros(1, 1, 8, 8))])
    with pytest.raises(RecipeError, match=r"mask: a tensor \(1, 1, H, W\) expected, found \(8, 8\)"):
        run(backbone, [Model(picture(2), mask=torch.ones(8, 8))])
    with pytest.raises(RecipeError, match="at least one picture"):
        run(backbone, [])
    with pytest.raises(RecipeError, match=r"vgg16 has no layer 'relu9_9'"):
        Recipe(backbone="vgg16", style_layers={"relu9_9": 1.0}, weights="random").load_backbone()


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_a_style_that_counts_no_finite_number_is_refused(weight: float):
    with pytest.raises(RecipeError, match="style weights: expected at least 0 and finite"):
        Model(picture(2), weight)
