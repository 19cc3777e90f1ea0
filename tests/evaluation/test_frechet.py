import warnings

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance as cleanfid_distance
from pytorch_fid.fid_score import calculate_frechet_distance as pytorch_fid_distance
from torch_fidelity.metric_fid import fid_statistics_to_metric as torch_fidelity_distance
from torchmetrics.image.fid import _compute_fid as torchmetrics_distance

from cyclegan.evaluation.frechet import frechet_distance, frechet_infinity
from cyclegan.evaluation.statistics import Moments, Statistics

SHAPES = [(2, 2, 4), (3, 5, 8), (5, 3, 2), (20, 20, 64), (20, 90, 64), (90, 20, 64), (64, 64, 64), (65, 65, 64)]
SHAPES += [(150, 200, 64), (1000, 900, 16), (40, 30, 192), (300, 400, 192)]


def features(n, d, seed=0, scale=1.0):
    """Non-negative and of a falling spectrum, like Inception's."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator) * torch.arange(1, d + 1) ** -0.7
    return (torch.randn(n, d, generator=generator) @ mix * scale + 0.3).relu()


def distance(x, y):
    return frechet_distance(Statistics.of(x), Statistics.of(y)).item()


@pytest.mark.parametrize("n, m, d", SHAPES)
def test_distance_is_that_of_four_libraries(n, m, d):
    x, y = features(n, d, 0), features(m, d, 1, scale=1.4)
    arrays = [x.double().numpy(), y.double().numpy()]
    mu_1, mu_2 = (array.mean(0) for array in arrays)
    sigma_1, sigma_2 = (np.cov(array, rowvar=False).reshape(d, d) for array in arrays)
    expected = [
        pytorch_fid_distance(mu_1, sigma_1, mu_2, sigma_2),
        cleanfid_distance(mu_1, sigma_1, mu_2, sigma_2),
        torch_fidelity_distance({"mu": mu_1, "sigma": sigma_1}, {"mu": mu_2, "sigma": sigma_2}, False)[
            "frechet_inception_distance"
        ],
        torchmetrics_distance(*(torch.from_numpy(z) for z in (mu_1, sigma_1, mu_2, sigma_2))).item(),
    ]
    assert [distance(x, y)] * 4 == pytest.approx(expected, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("n, m, d", SHAPES)
def test_all_ways_to_the_trace_agree(n, m, d):
    x, y = Statistics.of(features(n, d, 0)), Statistics.of(features(m, d, 1))
    x_summed, y_summed = (Statistics(s.n, s.mu, given_sigma=s.sigma) for s in (x, y))
    expected = frechet_distance(x, y).item()
    for a, b in [(x, y_summed), (x_summed, y), (x_summed, y_summed), (y, x)]:
        assert frechet_distance(a, b).item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_one_dimensional_gaussians_have_a_closed_form():
    x, y = torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([[1.0], [11.0]])
    deviations = 4**0.5, 50**0.5
    assert distance(x, y) == pytest.approx((6 - 2) ** 2 + (deviations[1] - deviations[0]) ** 2, rel=1e-12)


def test_commuting_covariances_have_a_closed_form():
    variances = torch.tensor([[1.0, 4.0, 9.0], [16.0, 1.0, 0.0]]).double()
    a, b = (Statistics(None, torch.zeros(3).double(), given_sigma=torch.diag(v)) for v in variances)
    assert frechet_distance(a, b).item() == pytest.approx((1 - 4) ** 2 + (2 - 1) ** 2 + 3**2, rel=1e-12)


@pytest.mark.parametrize("n, d", [(10, 64), (200, 2048), (65, 64), (500, 64)])
def test_distance_of_a_set_to_itself_is_zero(n, d):
    x = features(n, d)
    assert abs(distance(x, x)) < 1e-8


def test_a_shift_adds_its_squared_length():
    x = features(50, 8).double()
    assert distance(x, x + 2) == pytest.approx(8 * 2**2, rel=1e-9)


def test_120_images_against_2048_features_are_finite_real_and_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = distance(features(120, 2048, 0), features(140, 2048, 1))
    assert np.isfinite(value) and value > 0


def test_features_of_two_networks_are_refused():
    with pytest.raises(ValueError, match="8 and of 9"):
        distance(features(5, 8), features(5, 9))


def test_infinity_takes_the_bias_of_small_sets_out():
    reference = Statistics(None, torch.zeros(32).double(), given_sigma=torch.eye(32).double())
    values = []
    for seed in range(12):
        x = torch.randn(400, 32, generator=torch.Generator().manual_seed(seed))
        values.append([frechet_distance(Statistics.of(x), reference).item(), frechet_infinity(x, reference).item()])
    biased, corrected = np.mean(values, axis=0)
    assert biased > 0.5  # the distributions are equal
    assert abs(corrected) < biased / 4


@pytest.mark.parametrize("n, smallest", [(20, 10), (100, 10), (400, 40)])
def test_infinity_is_where_a_line_over_15_sizes_of_subsets_ends(n, smallest, monkeypatch):
    """The sizes from 2.5 for each feature, or a tenth of the images, up to all of them."""
    sizes = []

    def on_a_line(subset, reference):
        sizes.append(subset.n)
        return torch.tensor(7 + 300 / subset.n).double()

    monkeypatch.setattr("cyclegan.evaluation.frechet.frechet_distance", on_a_line)
    x = features(n, 4)
    assert frechet_infinity(x, Statistics.of(x)).item() == pytest.approx(7)
    assert sizes == [round(smallest + (n - smallest) * i / 14) for i in range(15)]


def test_infinity_draws_its_subsets_anew_with_its_seed_only():
    x, reference = features(60, 4), Statistics.of(features(50, 4, seed=1))
    one, same, other = (frechet_infinity(x, reference, seed=seed).item() for seed in (1, 1, 2))
    assert one == same != other


def test_infinity_wants_enough_images():
    with pytest.raises(ValueError, match="at least 40 images, got 39"):
        frechet_infinity(features(39, 8), Statistics.of(features(30, 8)))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_stream_of_any_cut_has_the_covariance_of_the_whole(offset):
    x = features(101, 16).double() + offset
    for cuts in ([101], [1] * 101, [40, 0, 60, 1]):
        moments = Moments()
        for part in x.split(cuts):
            moments.update(part)
        statistics = moments.statistics()
        np.testing.assert_allclose(statistics.mu, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(statistics.sigma, np.cov(x.numpy(), rowvar=False), rtol=1e-7, atol=1e-9)


def test_merged_streams_are_the_stream_of_both():
    x = features(60, 16).double()
    parts = [Moments() for _ in range(4)]
    for moments, rows in zip(parts, x.split([20, 1, 0, 39]), strict=True):
        moments.update(rows)
    whole = Moments()
    for moments in parts:
        whole.merge(moments)
    assert whole.n == 60
    np.testing.assert_allclose(whole.statistics().sigma, np.cov(x.numpy(), rowvar=False), rtol=1e-10, atol=1e-12)
