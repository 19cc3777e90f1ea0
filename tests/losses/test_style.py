"""Styles as distributions of features, against hand-computed values and loops over every pair of places."""

from __future__ import annotations

import math
import typing

import pytest
import torch
from torch import Tensor

from cyclegan.losses.style import Kernel, content_loss, describe, gram, style_distance, style_loss

KERNELS = typing.get_args(Kernel)


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(x: Tensor, y: Tensor, kernel: str, **options) -> Tensor:
    return style_distance(describe(x, kernel, **options), describe(y, kernel, **options))


def loops(x: Tensor, y: Tensor, kernel: str) -> float:
    """Of (C, places) each, by the book, one pair after the other."""
    channels, sums = len(x), dict.fromkeys(("xx", "yy", "xy"), 0.0)
    columns = {"x": x.T, "y": y.T}
    pairs = [(a - b).square().sum().item() for a in y.T for b in y.T]
    spread = sum(pairs) / len(pairs)
    for name in sums:
        one, other = columns[name[0]], columns[name[1]]
        for a in one:
            for b in other:
                if kernel == "linear":
                    value = (a @ b).item() / channels
                elif kernel == "polynomial":
                    value = (a @ b).item() ** 2 / (4 * channels**2)
                else:
                    value = math.exp(-(a - b).square().sum().item() / (2 * spread))
                sums[name] += value / (len(one) * len(other))
    return sums["xx"] + sums["yy"] - 2 * sums["xy"]


def test_gram_by_hand():
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two channels, two places
    assert gram(x).tolist() == [[[2.5, 5.5], [5.5, 12.5]]]
    only_second = torch.tensor([[[[0.0, 1.0]]]])
    assert gram(x, only_second).tolist() == [[[4.0, 8.0], [8.0, 16.0]]]


def test_the_gram_loss_has_the_papers_normalisation():
    x, y = features(1, 3, 4, 5), features(1, 3, 4, 5, seed=1)
    products = [torch.einsum("ik,jk->ij", z[0].flatten(1), z[0].flatten(1)) for z in (x, y)]
    papers = (products[0] - products[1]).square().sum() / (4 * 3**2 * 20**2)
    assert distance(x, y, "gram").item() == pytest.approx(papers.item())


def test_gram_is_the_mmd_with_the_squared_product():
    x, y = features(2, 3, 4, 5), features(2, 3, 6, 2, seed=1)
    assert torch.allclose(distance(x, y, "gram"), distance(x, y, "polynomial"))


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "gaussian"])
def test_distances_are_those_of_a_loop_over_all_pairs(kernel: str):
    x, y = features(1, 3, 2, 4), 1 + features(1, 3, 3, 3, seed=1)
    assert distance(x, y, kernel).item() == pytest.approx(loops(x[0].flatten(1), y[0].flatten(1), kernel))


def test_statistics_are_means_and_deviations():
    x = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]], dtype=torch.float64)  # means 2 and 5, deviations 1 and 0
    y = torch.tensor([[[[0.0, 0.0]], [[1.0, 7.0]]]], dtype=torch.float64)  # means 0 and 4, deviations 0 and 3
    assert distance(x, y, "statistics").item() == pytest.approx((4 + 1 + 1 + 9) / 2, rel=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_mask_of_zeros_and_ones_is_the_same_as_cutting(kernel: str):
    x, y = features(1, 3, 4, 6), features(1, 3, 4, 4, seed=1)
    mask = torch.zeros(1, 1, 4, 6, dtype=torch.float64)
    mask[..., :2] = 1
    masked = style_distance(describe(x, kernel, mask), describe(y, kernel))
    assert torch.allclose(masked, distance(x[..., :2], y, kernel))


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_picture_of_a_batch_has_its_own_mask_and_only_its_ratios_count(kernel: str):
    x, y, masks = features(2, 3, 4, 5), features(1, 3, 4, 4, seed=1), features(2, 1, 4, 5, seed=2).abs()
    wanted = describe(y, kernel)
    both = style_distance(describe(x, kernel, masks), wanted)
    alone = [style_distance(describe(x[n : n + 1], kernel, 7 * masks[n : n + 1]), wanted) for n in range(2)]
    assert torch.allclose(both, torch.cat(alone))


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_and_zero_for_the_same_style(kernel: str):
    x, y = features(1, 2, 2, 3).requires_grad_(), features(1, 2, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda z: distance(z, y, kernel), x)
    shuffled = x.detach().flatten(2).flip(2).view(1, 2, 3, 2)  # the same places elsewhere
    assert distance(x.detach(), shuffled, kernel).abs().item() < 1e-12


@pytest.mark.parametrize("kernel", KERNELS)
def test_relative_distances_do_not_depend_on_the_scale_and_are_one_for_nothing(kernel: str):
    x, y = features(1, 3, 4, 4), features(1, 3, 4, 4, seed=1)
    values = [
        style_distance(describe(k * x, kernel), describe(k * y, kernel), relative=True).item() for k in (1.0, 50.0)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    if kernel != "gaussian":  # whose features of 0 are a point like any other
        nothing = style_distance(describe(0 * x, kernel), describe(y, kernel), relative=True)
        assert nothing.item() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("kernel", ["polynomial", "gaussian"])
def test_sampled_places_estimate_the_whole(kernel: str):
    x, y = features(1, 3, 40, 40), 0.5 + 2 * features(1, 3, 40, 40, seed=1)
    draw = torch.Generator().manual_seed(0)
    some = distance(x, y, kernel, places=800, draw=draw).item()
    assert some != distance(x, y, kernel, places=1600).item()
    assert some == pytest.approx(distance(x, y, kernel, places=1600).item(), rel=0.15)
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    mask[..., :3] = 1
    drawn = describe(x, kernel, mask, places=100, draw=draw)
    inside = {tuple(place) for place in x[0, :, :, :3].flatten(1).T.tolist()}
    assert {tuple(place) for place in drawn.values[0].T.tolist()} <= inside


def test_places_are_drawn_at_most_once_without_a_mask_and_as_often_as_they_count_with_one():
    x, draw = torch.arange(100.0).view(1, 1, 10, 10), torch.Generator().manual_seed(0)
    drawn = describe(x, "polynomial", places=99, draw=draw)
    assert len(drawn.values.unique()) == 99
    assert torch.allclose(drawn.shares, torch.full((1, 99), 1 / 99))
    again = describe(x, "polynomial", places=99, draw=torch.Generator().manual_seed(0))
    assert torch.equal(again.values, drawn.values)
    mask = torch.zeros(1, 1, 10, 10)
    mask[..., 0, 7], mask[..., 4, 2] = 3, 1
    values = describe(x, "polynomial", mask, places=99, draw=draw).values.flatten().tolist()
    assert set(values) == {7, 42} and values.count(7) == pytest.approx(0.75 * 99, abs=15)
    whole = describe(x, "polynomial", mask, places=100)  # nothing is drawn where there are no more
    assert torch.equal(whole.values, x.flatten(2)) and whole.shares[0, [7, 42]].tolist() == [0.75, 0.25]


@pytest.mark.parametrize("masked", [False, True])
def test_each_picture_of_a_batch_has_places_of_its_own(masked: bool):
    x = torch.arange(2 * 3 * 30, dtype=torch.float64).view(2, 3, 5, 6)
    drawn = describe(x, "gaussian", torch.ones(1, 1, 5, 6) if masked else None, places=20)
    assert torch.equal(drawn.shares, torch.full((2, 20), 1 / 20, dtype=torch.float64))
    for picture, values in zip(x.flatten(2), drawn.values, strict=True):
        places = values[0] - picture[0, 0]
        assert torch.equal(values, picture[:, places.long()])


def test_one_wanted_style_serves_a_batch_and_layers_are_weighted():
    x, y = features(2, 3, 4, 4), features(1, 3, 4, 4, seed=1)
    for kernel in KERNELS:
        both = distance(x, y, kernel)
        assert torch.allclose(both[1:], distance(x[1:], y, kernel))
        found, wanted = ({"one": describe(z, kernel), "two": describe(2 * z, kernel)} for z in (x, y))
        expected = 0.25 * both + 3 * distance(2 * x, 2 * y, kernel)
        assert torch.allclose(style_loss(found, wanted, {"one": 0.25, "two": 3.0}), expected)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_wanted_picture_of_nothing_gives_finite_distances_and_gradients(kernel: str, relative: bool):
    x, nothing = features(1, 3, 4, 4).float().requires_grad_(), torch.zeros(1, 3, 4, 4)
    style = style_distance(describe(x, kernel), describe(nothing, kernel), relative)
    content = content_loss(x, nothing, relative)
    (style + content).sum().backward()
    assert 0 < style.item() < math.inf and 0 < content.item() < math.inf
    assert x.grad.isfinite().all()


def test_content_is_half_the_sum_of_squares():
    x = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    y = torch.tensor([[[[3.0, 2.0]]], [[[1.0, 1.0]]]])
    assert content_loss(x, y).tolist() == [2.0, 1.0]
    assert content_loss(x, y, relative=True).tolist() == [pytest.approx(4 / 13), 1.0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_losses_of_half_precision_features_are_those_of_float32(kernel: str):
    """Under autocast, too, as in training: features in the hundreds, whose squares float16 does not hold."""
    draw = torch.Generator().manual_seed(0)
    found, wanted = ((600 * torch.rand(2, 4, 6, 6, generator=draw)).half() for _ in range(2))
    exact = distance(found.float(), wanted.float(), kernel)
    contents = [content_loss(found.float(), wanted.float(), relative) for relative in (False, True)]
    with torch.autocast("cpu", torch.float16):
        assert torch.allclose(distance(found, wanted, kernel).float(), exact, rtol=1e-4)
        for content, relative in zip(contents, (False, True), strict=True):
            assert torch.allclose(content_loss(found, wanted, relative).float(), content, rtol=1e-4)
        assert torch.allclose(gram(found), gram(found.float()), rtol=1e-4)
