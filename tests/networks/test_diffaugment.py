from __future__ import annotations

import pytest
import torch
from torch import nn

from cyclegan.networks import diffaugment
from cyclegan.networks.diffaugment import CHANGES, DiffAugment, adaptive, attach, colour, cutout, translation

ALL = ["colour", "translation", "cutout"]


def pictures(count: int = 4, channels: int = 3, side: int = 16) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("change", ALL)
def test_each_way_changes_pictures_and_at_p_0_nothing(change: str):
    torch.manual_seed(0)
    assert torch.equal(DiffAugment([change], p=0)(pictures()), pictures())
    changed = DiffAugment([change], p=1)(pictures(16))
    assert sum(not torch.equal(a, b) for a, b in zip(changed, pictures(16), strict=True)) >= 14
    assert changed.shape == (16, 3, 16, 16)


def test_p_is_the_share_of_pictures_that_change():
    torch.manual_seed(0)
    images = pictures(2000, side=2)
    changed = (DiffAugment(["colour"], p=0.3)(images) != images).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_draws_follow_torchs_global_generator():
    torch.manual_seed(5)
    one = DiffAugment(ALL)(pictures())
    torch.manual_seed(5)
    assert torch.equal(one, DiffAugment(ALL)(pictures()))


def test_translation_moves_whole_pictures_by_up_to_an_eighth():
    torch.manual_seed(0)
    images, seen = pictures(200), set()
    for image, moved in zip(images, translation(images), strict=True):
        fits = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                expected = torch.zeros(3, 20, 20)
                expected[:, 2 + down : 18 + down, 2 + right : 18 + right] = image
                fits += [(down, right)] * torch.equal(expected[:, 2:18, 2:18], moved)
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == 25


def test_cutout_greys_one_rectangle_of_half_the_sides_or_what_of_it_lies_inside():
    torch.manual_seed(0)
    areas = []
    for image, cut in zip(pictures(300) + 2, cutout(pictures(300) + 2), strict=True):
        hole = (cut == 0).all(0)
        assert torch.equal(cut[:, ~hole], image[:, ~hole])
        rows, columns = hole.any(1).sum().item(), hole.any(0).sum().item()
        assert hole.sum() == rows * columns and 4 <= rows <= 8 and 4 <= columns <= 8
        areas.append(rows * columns)
    assert max(areas) == 64 and min(areas) == 16


def test_sides_of_different_lengths_are_moved_and_cut_by_their_own():
    torch.manual_seed(0)
    images = torch.ones(400, 1, 40, 48)
    moved, cut = translation(images) == 0, cutout(images) == 0
    for dim, side in ((2, 40), (1, 48)):
        gone = moved[:, 0].all(dim).float()
        before, after = gone[:, : side // 2].sum(1), gone[:, side // 2 :].sum(1)
        assert before.max() == after.max() == side / 8 and (before * after == 0).all()
    rows, columns = ([across.nonzero().flatten() for across in cut[:, 0].any(dim)] for dim in (2, 1))
    for places, side in ((rows, 40), (columns, 48)):
        assert max(len(place) for place in places) == side / 2
        assert min(place[-1] + 1 for place in places) == side - max(place[0] for place in places) == side / 4


def test_colour_is_brightness_saturation_and_contrast_in_this_order():
    images = pictures(3)
    torch.manual_seed(1)
    changed = colour(images)
    torch.manual_seed(1)
    draws = torch.rand(3, 3, 1, 1, 1, 1).flatten(1)
    for n, image in enumerate(images):
        x = image + draws[0, n] - 0.5
        x = (x - x.mean(0)) * draws[1, n] * 2 + x.mean(0)
        x = (x - x.mean()) * (draws[2, n] + 0.5) + x.mean()
        assert torch.allclose(changed[n], x, atol=1e-6)


def test_pictures_of_a_stack_change_alike():
    torch.manual_seed(0)
    one = pictures(2)
    for name, change in CHANGES.items():
        stacked = change(torch.cat([one, one], 1))
        assert torch.equal(stacked[:, :3], stacked[:, 3:]), name


def test_a_stack_of_grey_pictures_keeps_each_ones_mean():
    images = pictures(3, channels=4)
    torch.manual_seed(1)
    changed = colour(images)
    torch.manual_seed(1)
    brightness, _, contrast = torch.rand(3, 3, 1, 1, 1)
    mean = images.mean((2, 3), keepdim=True)
    assert torch.allclose(changed, (images - mean) * (contrast + 0.5) + mean + brightness - 0.5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_pictures_keep_their_precision_and_are_chosen_as_in_float32(dtype: torch.dtype):
    images, augment, changed = pictures(50), DiffAugment(["colour"], p=0.5), []
    for given in (images, images.to(dtype)):
        torch.manual_seed(0)
        found = augment(given)
        assert found.dtype == given.dtype
        changed.append((found != given).flatten(1).any(1).tolist())
    assert changed[0] == changed[1] and 10 < sum(changed[0]) < 40


def test_gradients_reach_the_generator_exactly():
    images = pictures(2, side=8).double().requires_grad_()
    augment = DiffAugment(ALL).double()

    def seeded(x):
        torch.manual_seed(3)
        return augment(x)

    assert torch.autograd.gradcheck(seeded, images)
    assert torch.autograd.gradgradcheck(seeded, images)  # for penalties on gradients


def test_a_discriminator_keeps_the_names_of_its_weights_and_sees_only_changed_pictures():
    torch.manual_seed(0)
    seen = []
    network = nn.Conv2d(3, 1, 1)
    names = set(network.state_dict())
    network.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0]))
    attach(network, DiffAugment(["cutout"]))
    network(pictures() + 2)
    assert (seen[0] == 0).any() and set(network.state_dict()) == names and adaptive(network) is None
    attach(network, DiffAugment(["cutout"], target=0.6))
    assert set(network.state_dict()) == names | {"diffaugment.p", "diffaugment.signs"}
    assert adaptive(network) is network.diffaugment


# ---- adaptive strength


def heard(augment: DiffAugment, score: float, middle: float = 0.0, count: int = 64) -> None:
    augment.hear(torch.full((count, 1, 2, 2), score), middle)
    augment.adapt(augment.heard.clone())


def test_p_moves_after_256_real_pictures_towards_the_target():
    augment = DiffAugment(ALL, p=0.5, target=0.6, ramp_images=2560)
    for _ in range(3):
        heard(augment, 1.0)
    assert augment.p.item() == 0.5
    heard(augment, 1.0)  # 256 pictures, all sure: r = 1 > 0.6
    assert augment.p.item() == pytest.approx(0.6)
    for _ in range(4):
        heard(augment, -1.0)
    assert augment.p.item() == pytest.approx(0.5)
    for _ in range(4):
        heard(augment, 0.7, middle=0.5)  # least squares: above the middle between 0 and 1
    assert augment.p.item() == pytest.approx(0.6)
    for _ in range(4):
        heard(augment, 0.3, middle=0.5)
    assert augment.p.item() == pytest.approx(0.5)


def test_r_is_the_mean_sign_over_pictures_and_patches():
    augment = DiffAugment(ALL, p=0.5, target=0.6, ramp_images=256)
    score = torch.tensor([1.0, 1.0, 1.0, -1.0]).view(1, 1, 2, 2).expand(256, 1, 2, 2)  # r = 0.5 < 0.6
    augment.hear([score, score], 0.0)
    augment.adapt(augment.heard.clone())
    assert augment.p.item() == 0  # a step of 1, cut off at 0


def test_p_stays_where_scores_are_as_sure_as_wanted_or_none_were_heard():
    augment = DiffAugment(ALL, p=0.5, target=0.5, ramp_images=256)
    score = torch.tensor([1.0, 1.0, 1.0, -1.0]).expand(256, 4).requires_grad_()  # r = 0.5
    augment.adapt(augment.heard.clone())
    augment.hear(score, 0.0)
    assert not augment.heard.requires_grad
    augment.adapt(augment.heard.clone())
    assert augment.p.item() == 0.5 and augment.signs.tolist() == [0, 0]


def test_discriminators_of_several_scales_count_alike_whatever_the_sizes_of_their_maps():
    augment = DiffAugment(ALL, target=0.6)
    augment.hear([torch.ones(4, 1, 8, 8), torch.ones(4, 1, 4, 5), -torch.ones(4, 1, 1, 2), torch.zeros(4, 1, 1, 1)], 0)
    assert augment.heard.tolist() == [4 * (1 + 1 - 1 + 0) / 4, 4]


def test_p_stays_within_0_and_1():
    augment = DiffAugment(ALL, p=0.9, target=0.6, ramp_images=256)
    heard(augment, 1.0, count=300)
    assert augment.p.item() == 1


def test_what_all_processes_heard_counts_and_is_forgotten_afterwards():
    augment = DiffAugment(ALL, p=0.0, target=0.6, ramp_images=2560)
    augment.hear(torch.ones(128, 1), 0.0)
    augment.adapt(augment.heard * 2)  # two processes heard the same
    assert augment.p.item() == pytest.approx(0.1)
    assert augment.signs.tolist() == [0, 0] and augment.heard.tolist() == [0, 0]
    assert diffaugment.EVERY == 256
