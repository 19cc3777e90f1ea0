"""GcGAN and DistanceGAN."""

from __future__ import annotations

import pytest
import torch

from cyclegan.algorithms import Algorithm, build_algorithm, complete_config
from cyclegan.algorithms.distancegan import Distances
from cyclegan.config import ConfigError, load_config
from cyclegan.training.checkpoint import dealt_out
from tests.algorithms.test_algorithms import NETWORKS


def built(name: str, batch_size: int = 2, **options) -> Algorithm:
    torch.manual_seed(0)
    values = {"name": "x", "algorithm": {"name": name, **options}, "training": {"batch_size": batch_size}, **NETWORKS}
    return build_algorithm(load_config(values))


def pair(count: int = 2, height: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {d: torch.rand(count, 3, height, 24, generator=generator) * 2 - 1 for d in "AB"}


def turned(image: torch.Tensor, turn: str) -> torch.Tensor:
    """Pixel by pixel: a quarter clockwise, or upside down."""
    height = image.shape[2]
    if turn == "flip":
        return torch.stack([image[:, :, height - 1 - row] for row in range(height)], 2)
    columns = [image[:, :, height - 1 - row] for row in range(height)]  # the lowest row becomes the first column
    return torch.stack(columns, 3)


@pytest.mark.parametrize("turn", ["rotate", "flip"])
def test_geometry_is_the_distance_of_both_orders(turn: str):
    ours, batch = built("gcgan", turn=turn, geometry=3, pool=0), pair()
    terms = dict(ours.losses(batch))["generators"]
    fake, fake_turned = ours.G(batch["A"]), ours.G(turned(batch["A"], turn))
    distance = (turned(fake, turn) - fake_turned).abs().mean()
    assert terms["geometry"].item() == pytest.approx(3 * 2 * distance.item(), rel=1e-4)
    expected = ((ours.D_turned(fake_turned) - 1) ** 2).mean()
    assert terms["adversarial_turned"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("turn", ["rotate", "flip"])
def test_a_generator_that_looks_at_single_pixels_keeps_geometry(turn: str):
    ours = built("gcgan", turn=turn)
    ours.G = torch.nn.Conv2d(3, 3, 1)
    terms = dict(ours.losses(pair()))["generators"]
    assert terms["geometry"].item() == pytest.approx(0, abs=1e-5)


def test_the_second_discriminator_sees_turned_pictures_only():
    ours, batch, seen = built("gcgan", pool=0), pair(), []
    ours.D_turned.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    list(ours.losses(batch))
    assert [tuple(image.shape[2:]) for image in seen] == [(24, 32)] * 2  # fake, then real and past in one
    assert torch.equal(seen[1][: len(batch["B"])], turned(batch["B"], "rotate"))


def standardised(value: float, known: list[float]) -> float:
    mean = sum(known) / len(known)
    deviation = (sum((k - mean) ** 2 for k in known) / len(known)) ** 0.5
    return (value - mean) / max(deviation, 0.01)


@pytest.mark.parametrize("between", ["halves", "images"])
def test_distances_are_compared_as_in_the_paper(between: str):
    ours, batch = built("distancegan", between=between, distance=2, remembered=3), pair(count=3)

    def distances(images: torch.Tensor) -> list[float]:
        if between == "halves":
            return [(image[:, :16] - image[:, 16:]).abs().mean().item() for image in images]
        pairs = [(i, j) for i in range(3) for j in range(i + 1, 3)]
        return [(images[i] - images[j]).abs().mean().item() for i, j in pairs]

    terms = dict(ours.losses(batch))["generators"]
    a, b, fake = (distances(images) for images in (batch["A"], batch["B"], ours.G(batch["A"])))
    apart = [abs(standardised(x, a) - standardised(y, b)) for x, y in zip(a, fake, strict=True)]
    assert terms["distance"].item() == pytest.approx(2 * sum(apart) / len(apart), rel=1e-3)


@pytest.mark.parametrize(("remembered", "updates"), [(1000, 25), (8, 4)])
def test_distances_count_once_mean_and_deviation_are_known(remembered: int, updates: int):
    ours, found = built("distancegan", remembered=remembered), []
    for _ in range(updates + 1):
        term = dict(ours.losses(pair()))["generators"]["distance"]
        (gradient,) = torch.autograd.grad(term, [ours.G.model[1].weight])
        found.append((term.item() > 0, bool(gradient.any())))
    assert found == [(False, False)] * (updates - 1) + [(True, True)] * 2  # two distances a batch: 50, or all of 8


def test_mean_and_deviation_are_those_of_the_last_distances():
    known = Distances(3)
    for value in (9.0, 1.0, 2.0, 6.0):
        known.add(torch.tensor([value]))
    assert known.standardised(torch.tensor([4.0])).item() == pytest.approx(standardised(4, [1, 2, 6]))
    known.add(torch.tensor([5.0, 7.0]))
    assert known.values.tolist() == [6, 5, 7]


def test_distances_are_dealt_out_to_another_number_of_processes():
    owns = []
    for values in ([1.0, 2.0], [3.0]):
        known = Distances(9)
        known.add(torch.tensor(values))
        owns.append({"memory": {"seen_a": known.state_dict()}})
    alone = Distances(9)
    alone.load_state_dict(dealt_out(owns, "seen_a", 0, 1))
    assert alone.values.tolist() == [1, 2, 3]


def test_odd_heights_leave_the_middle_row_out():
    ours = built("distancegan")
    assert ours._distances(pair(height=33)["A"]).shape == (2,)


def test_pairs_of_images_need_a_batch():
    with pytest.raises(ConfigError, match=r"algorithm\.between: images needs pairs of them; set training\.batch_size"):
        built("distancegan", batch_size=1, between="images")


@pytest.mark.parametrize("name", ["distancegan", "gcgan"])
@pytest.mark.parametrize("kind", ["wgan", "wgan-gp"])
def test_critics_that_nothing_bounds_are_refused(name: str, kind: str):
    with pytest.raises(ConfigError, match=r"algorithm\.adversarial.*" + kind):
        complete_config(load_config({"name": "x", "algorithm": {"name": name, "adversarial": kind}}))
