from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cyclegan.losses import critic_loss, gan_loss, gradient_penalty, l1_loss, r1_penalty, within

SCORES = torch.tensor([[0.0, 2.0]])


def log1pexp(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("lsgan", (1 + 1) / 2),
        ("vanilla", (log1pexp(0) + log1pexp(-2)) / 2),
        ("nonsaturating", (log1pexp(0) + log1pexp(-2)) / 2),
        ("hinge", -1.0),
        ("wgan", -1.0),
        ("wgan-gp", -1.0),
    ],
)
def test_gan_loss_has_the_value_computed_by_hand(kind: str, expected: float):
    assert gan_loss(SCORES, kind).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [  # real scores 0 and 2, fake scores -3 and 0.5
        ("lsgan", 0.5 * ((1 + 1) / 2 + (9 + 0.25) / 2)),
        ("vanilla", 0.5 * ((log1pexp(0) + log1pexp(-2)) / 2 + (log1pexp(-3) + log1pexp(0.5)) / 2)),
        ("nonsaturating", 0.5 * ((log1pexp(0) + log1pexp(-2)) / 2 + (log1pexp(-3) + log1pexp(0.5)) / 2)),
        ("hinge", 0.5 * ((1 + 0) / 2 + (0 + 1.5) / 2)),
        ("wgan", 0.5 * (-1.25 - 1)),
        ("wgan-gp", 0.5 * (-1.25 - 1)),
    ],
)
def test_critic_loss_has_the_value_computed_by_hand(kind: str, expected: float):
    assert critic_loss(SCORES, torch.tensor([[-3.0, 0.5]]), kind).item() == pytest.approx(expected)


def test_vanilla_is_the_references_cross_entropy_with_logits():
    real, fake = torch.randn(2, 1, 5, 5), torch.randn(2, 1, 5, 5)
    bce = F.binary_cross_entropy_with_logits
    assert torch.allclose(gan_loss(fake, "vanilla"), bce(fake, torch.ones_like(fake)))
    expected = 0.5 * (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake)))
    assert torch.allclose(critic_loss(real, fake, "vanilla"), expected)


def test_gradient_penalty_of_a_linear_critic_is_that_of_its_slope():
    weights = torch.full((3, 2, 2), 0.5)  # the gradient everywhere, of length sqrt(12) / 2
    penalty = gradient_penalty(lambda x: (x * weights).sum((1, 2, 3)), torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2))
    assert penalty.item() == pytest.approx((math.sqrt(12) / 2 - 1) ** 2, rel=1e-5)


def test_gradient_penalty_looks_at_a_random_point_between_each_two_pictures():
    real, fake, seen = torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2) + 2, []
    gradient_penalty(lambda x: seen.append(x) or x.sum((1, 2, 3)), real, fake)
    (points,) = seen
    shares = ((points - fake) / (real - fake)).flatten(1)
    assert torch.allclose(shares, shares[:, :1].expand_as(shares), atol=1e-5)  # one for all values of a picture
    assert shares.min() >= -1e-5 and shares.max() <= 1 + 1e-5 and shares[:, 0].unique().numel() == 4


def test_gradient_penalty_reaches_the_critics_weights():
    critic = torch.nn.Conv2d(3, 1, 2)
    gradient_penalty(critic, torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)).backward()
    assert critic.weight.grad.abs().sum() > 0


def test_l1_is_the_mean_absolute_difference():
    assert l1_loss(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0])).item() == 2.0


def test_l1_inside_a_mask_is_the_mean_over_what_it_covers():
    output, target = torch.full((2, 3, 1, 4), 5.0), torch.full((2, 3, 1, 4), 2.0)
    target[0, 1, 0, 0] = 8.5  # inside
    target[1, 0, 0, 3] = 100.0  # outside
    mask = torch.zeros(2, 1, 1, 4)
    mask[0, :, :, :2] = mask[1, :, :, 0] = 1
    assert l1_loss(output, target, mask).item() == pytest.approx((8 * 3 + 3.5) / 9)  # 3 places of 3 channels
    assert l1_loss(output, target, torch.zeros(2, 1, 1, 4)).item() == 0


def test_within_a_mask_is_the_picture_and_the_background_around_it():
    image, background = torch.tensor([[[[3.0, -4.0, 5.0]]]]), torch.tensor([[[[0.5, 0.25, -8.0]]]])
    mask = torch.tensor([[[[1.0, 0.0, 0.5]]]])
    assert within(mask, image, background).flatten().tolist() == [3.0, 0.25, -1.5]
    assert within(None, image, background) is image


def test_losses_of_several_maps_add_up():
    maps = [torch.randn(2, 1, 5, 5), torch.randn(2, 1, 3, 3)]
    others = [score + 1 for score in maps]
    assert gan_loss(maps).item() == pytest.approx(sum(gan_loss(score).item() for score in maps))
    expected = sum(critic_loss(a, b, "hinge").item() for a, b in zip(maps, others, strict=True))
    assert critic_loss(maps, others, "hinge").item() == pytest.approx(expected)


def test_r1_is_half_the_squared_gradient_at_real_pictures():
    real, weights = torch.randn(4, 3, 2, 2), torch.randn(3, 2, 2)

    def critic(x):  # sum(w x^2), so that the gradient is 2 w x
        return (weights * x.square()).sum((1, 2, 3))[:, None]

    expected = 0.5 * sum(((2 * weights * x) ** 2).sum().item() for x in real) / 4
    assert r1_penalty(critic, real).item() == pytest.approx(expected, rel=1e-5)


def test_r1_of_independent_patches_is_the_mean_of_their_own():
    real = torch.randn(2, 1, 4, 4)
    patches = torch.nn.Conv2d(1, 1, 2, stride=2)  # each pixel belongs to one patch: a gradient of its weights
    each = 0.5 * patches.weight.square().sum().item()
    assert r1_penalty(patches, real).item() == pytest.approx(each, rel=1e-5)
    assert r1_penalty(lambda x: [patches(x)], real).item() == pytest.approx(each, rel=1e-5)


def test_r1_reaches_the_critics_weights_and_leaves_the_picture_alone():
    critic, real = torch.nn.Conv2d(3, 1, 2), torch.rand(2, 3, 4, 4)
    r1_penalty(critic, real).backward()
    assert critic.weight.grad.abs().sum() > 0 and not real.requires_grad


@pytest.mark.parametrize("kind", ["lsgan", "vanilla", "hinge", "wgan"])
def test_means_of_half_precision_scores_are_taken_in_float32(kind: str):
    score = torch.linspace(-1, 2, 900).bfloat16()
    exact = gan_loss(score.double(), kind).item(), critic_loss(score.double(), -score.double(), kind).item()
    assert gan_loss(score, kind).item() == pytest.approx(exact[0], rel=1e-5, abs=1e-6)
    assert critic_loss(score, -score, kind).item() == pytest.approx(exact[1], rel=1e-5, abs=1e-6)
