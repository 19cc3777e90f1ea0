import numpy as np
import pytest
import torch
from cleanfid.fid import kernel_distance
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.kid import poly_mmd

from cyclegan.evaluation.kernel import kid, kid_draws, kid_of_subsets


def features(n, d=16, shift=0.0, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_kid_is_the_mean_over_pairs_of_different_images():
    x, y = features(5, d=3).double().numpy(), features(4, d=3, seed=1).double().numpy()

    def k(a, b):
        return (np.dot(a, b) / 3 + 1) ** 3

    within_x = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert kid(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(within_x + within_y - 2 * across, rel=1e-12)


def test_kid_is_that_of_torchmetrics_and_clean_fid():
    x, y = features(40).double(), features(40, shift=0.4, seed=1).double()
    assert kid(x, y).item() == pytest.approx(poly_mmd(x, y).item(), abs=1e-6)
    in_one_subset = kernel_distance(x.numpy(), y.numpy(), num_subsets=1, max_subset_size=40)
    # clean-fid's estimate leaves out no pairs (i, i) across the sets either
    assert kid(x, y).item() == pytest.approx(in_one_subset, abs=1e-6)


def test_subsets_are_those_of_torch_fidelity():
    x, y = features(60), features(50, shift=0.4, seed=1)
    options = {"kid_subsets": 7, "kid_subset_size": 20, "rng_seed": 3, "verbose": False, "kid_kernel": "poly"}
    options |= {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    expected = kid_features_to_metric(x, y, **options)
    mean, deviation = kid_of_subsets(x, y, subsets=7, size=20, seed=3)
    assert mean.item() == pytest.approx(expected["kernel_inception_distance_mean"], abs=1e-6)
    assert deviation.item() == pytest.approx(expected["kernel_inception_distance_std"], abs=1e-6)


def test_kid_does_not_depend_on_how_the_kernel_matrix_is_cut(monkeypatch):
    x, y = features(50), features(37, seed=1)
    whole, drawn = kid(x, y), kid_draws(x, y, draws=5)
    monkeypatch.setattr("cyclegan.evaluation.kernel.ROWS", 7)
    assert kid(x, y).item() == pytest.approx(whole.item(), rel=1e-10)
    assert kid_draws(x, y, draws=5).tolist() == pytest.approx(drawn.tolist(), rel=1e-10)


def test_kid_of_small_sets_is_unbiased():
    values = [kid(features(10, seed=2 * s), features(15, seed=2 * s + 1)).item() for s in range(400)]
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0


def test_kid_over_one_subset_of_everything_is_kid():
    x, y = features(30), features(30, shift=0.3, seed=1)
    mean, deviation = kid_of_subsets(x, y, subsets=3)
    assert mean.item() == pytest.approx(kid(x, y).item(), rel=1e-10)
    assert deviation.item() == pytest.approx(0, abs=1e-12)


def test_subsets_repeat_with_their_seed_only():
    x, y = features(60), features(50, seed=1)
    assert kid_of_subsets(x, y, 5, 20, seed=1) == kid_of_subsets(x, y, 5, 20, seed=1)
    assert kid_of_subsets(x, y, 5, 20, seed=1) != kid_of_subsets(x, y, 5, 20, seed=2)


UNUSABLE = [((1, 4), (5, 4), "at least 2 images"), ((5, 4), (5, 3), "one d")]
UNUSABLE += [((5, 4, 1), (5, 4), "one d"), ((5, 4), (5, 4, 1), "one d")]


@pytest.mark.parametrize("x, y, message", UNUSABLE)
def test_kid_of_unusable_features_says_why(x, y, message):
    with pytest.raises(ValueError, match=message):
        kid(torch.zeros(x), torch.zeros(y))
