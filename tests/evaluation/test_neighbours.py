import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import calculate_precision_recall_full

from cyclegan.evaluation.neighbours import density_coverage, precision_recall


def features(n, seed, scale=1.0):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).double() * scale


@pytest.mark.parametrize("n, m, neighbours", [(40, 40, 3), (30, 55, 5), (55, 30, 1)])
def test_precision_and_recall_are_torch_fidelitys(n, m, neighbours):
    real, fake = features(n, 0), features(m, 1, scale=1.5)
    expected = calculate_precision_recall_full(fake, real, neighbours)
    assert [value.item() for value in precision_recall(real, fake, neighbours)] == pytest.approx(expected, abs=1e-6)


def test_density_and_coverage_are_counts_of_balls():
    real, fake, k = features(30, 0).numpy(), features(20, 1, scale=1.3).numpy(), 4
    radius = [np.sort([np.linalg.norm(a - b) for b in real])[k] for a in real]
    inside = np.array([[np.linalg.norm(a - b) < r for b in fake] for a, r in zip(real, radius, strict=True)])
    density, coverage = density_coverage(torch.from_numpy(real), torch.from_numpy(fake), k)
    assert density.item() == pytest.approx(inside.sum() / (k * len(fake)))
    assert coverage.item() == pytest.approx(inside.any(1).mean())


def test_numbers_do_not_depend_on_how_the_distance_matrix_is_cut(monkeypatch):
    real, fake = features(30, 0), features(25, 1)
    whole = precision_recall(real, fake), density_coverage(real, fake)
    monkeypatch.setattr("cyclegan.evaluation.neighbours.ROWS", 7)
    assert (precision_recall(real, fake), density_coverage(real, fake)) == whole


def test_fakes_far_away_are_neither_precise_nor_cover_anything():
    real = features(20, 0)
    values = (*precision_recall(real, real + 1000), *density_coverage(real, real + 1000))
    assert [value.item() for value in values] == [0, 0, 0, 0]


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least 6 images on each side, got 5"):
        density_coverage(features(5, 0), features(9, 1), neighbours=5)


def test_the_edge_of_a_ball_belongs_to_it_in_the_one_paper_and_not_in_the_other():
    """On a line: real images at 0, 1, 3, whose nearest others are 1, 1, 2 away; a fake at 5 is 2 away from the last."""
    real, fake = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[5.0], [-9.0]])
    precision, _ = precision_recall(real, fake, neighbours=1)
    density, coverage = density_coverage(real, fake, neighbours=1)
    assert (precision.item(), density.item(), coverage.item()) == (1 / 2, 0, 0)


def test_single_precision_features_far_from_zero_are_counted_exactly():
    draw = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(-high, high, (80, 6), generator=draw).float() for high in (9, 10))
    near = *precision_recall(real, fake), *density_coverage(real, fake)
    far = *precision_recall(real + 4096, fake + 4096), *density_coverage(real + 4096, fake + 4096)
    assert near == far and all(0 < value < 1 for value in near)
