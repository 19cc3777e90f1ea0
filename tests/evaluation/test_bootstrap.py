import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from cyclegan.evaluation.bootstrap import interval, times_drawn
from cyclegan.evaluation.frechet import frechet_distance, frechet_draws
from cyclegan.evaluation.kernel import kid, kid_draws
from cyclegan.evaluation.statistics import EvaluationError, Statistics


def gaussian(n, d=4, shift=0.0, scale=1.0, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, scale, (n, d)))


def distance(x, y):
    return frechet_distance(Statistics.of(x), Statistics.of(y)).item()


def slow_distance(x, y):
    """By the formula: numpy's covariances and a matrix square root."""
    sigmas = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(sigmas[0] @ sigmas[1]).real
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(sigmas[0] + sigmas[1] - 2 * root)


def slow_kid(x, y, rows, columns):
    """Over all pairs of drawn images that are not copies of one."""

    def mean(a, b, drawn_a, drawn_b, within):
        pairs = [(i, j) for i in drawn_a for j in drawn_b if not within or i != j]
        return np.mean([(a[i] @ b[j] / a.shape[1] + 1) ** 3 for i, j in pairs])

    return (
        mean(x, x, rows, rows, True) + mean(y, y, columns, columns, True) - 2 * mean(x, y, rows, columns, within=False)
    )


def drawn_rows(n, m, draws, seed):
    """The images of each draw, by number, with repeats."""
    generator = torch.Generator().manual_seed(seed)
    times = [times_drawn(size, draws, generator) for size in (n, m)]
    return [[np.repeat(np.arange(len(t)), t.long().numpy()) for t in side] for side in times]


@pytest.mark.parametrize("n, m, d", [(12, 15, 4), (9, 7, 30), (40, 6, 10)])
def test_each_draw_is_the_distance_of_the_drawn_images(n, m, d):
    x, y = gaussian(n, d), gaussian(m, d, shift=0.7, scale=1.4, seed=1)
    rows, columns = drawn_rows(n, m, draws=5, seed=3)
    expected = [slow_distance(x[a].numpy(), y[b].numpy()) for a, b in zip(rows, columns, strict=True)]
    assert frechet_draws(x, y, draws=5, seed=3).tolist() == pytest.approx(expected, rel=1e-4)


def test_single_precision_features_are_drawn_in_double_precision():
    x, y = gaussian(12).float() + 1000, gaussian(15, shift=0.7, seed=1).float() + 1000
    for draws_of in (frechet_draws, kid_draws):
        exact = draws_of(x.double(), y.double(), 5)
        assert draws_of(x, y, 5).dtype == torch.float64 and torch.equal(draws_of(x, y, 5), exact)


def test_each_draw_of_kid_leaves_out_pairs_of_copies():
    x, y = gaussian(6), gaussian(7, shift=0.5, seed=1)
    expected = [slow_kid(x.numpy(), y.numpy(), a, b) for a, b in zip(*drawn_rows(6, 7, draws=4, seed=5), strict=True)]
    assert kid_draws(x, y, draws=4, seed=5).tolist() == pytest.approx(expected, rel=1e-10)


def test_every_draw_takes_as_many_images_as_there_are_and_repeats_with_its_seed():
    once, again, other = (times_drawn(9, 50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert (once.sum(1) == 9).all() and torch.equal(once, again) and not torch.equal(once, other)
    assert once.mean(0).sub(1).abs().max() < 0.5  # no image is preferred


def test_the_interval_is_that_of_the_draws_moved_onto_the_estimate():
    drawn = torch.tensor([10.0, 10, 10, 14]).double()  # about their mean: -1, -1, -1, 3
    low, high = interval(torch.tensor(5.0).double(), drawn, confidence=1.0)
    assert (low.item(), high.item()) == (5 - 1, 5 + 3)


def test_an_interval_leaves_out_half_of_the_rest_at_either_end():
    drawn = torch.arange(0.0, 41.0, 10).double()  # about their mean: -20 … 20
    low, high = interval(torch.tensor(100.0).double(), drawn, confidence=0.8)
    assert (low.item(), high.item()) == pytest.approx((100 - 16, 100 + 16))


def coverage(draws_of, value_of, truth, make, sets=200):
    inside = 0
    for seed in range(sets):
        x, y = make(2 * seed + 1)
        low, high = interval(value_of(x, y), draws_of(x, y, 100, seed), 0.9)
        inside += bool(low <= truth <= high)
    return inside / sets


def test_nine_of_ten_intervals_hold_the_closed_form_of_two_gaussians():
    """Where there are many more images than features, so that FID's bias is small beside its spread."""
    truth = 2 * 1.0**2 + 2 * (1.5 - 1) ** 2

    def make(seed):
        return gaussian(300, 2, seed=seed), gaussian(350, 2, shift=1.0, scale=1.5, seed=seed + 1)

    def value(x, y):
        return frechet_distance(Statistics.of(x), Statistics.of(y))

    assert coverage(frechet_draws, value, truth, make) == pytest.approx(0.9, abs=0.06)


def test_nine_of_ten_intervals_of_kid_hold_the_closed_form_of_two_gaussians():
    """E (t / d + 1)³ for t = x·y, from the first three moments of t for normals about 0 and about `shift`."""
    d, shift = 16, 0.3
    square = d * shift**2

    def kernel(first, second, third):
        return 1 + 3 * first / d + 3 * second / d**2 + third / d**3

    within_x = kernel(0, d, 0)
    within_y = kernel(square, d + 2 * square + square**2, square**3 + 6 * square**2 + (3 * d + 6) * square)
    truth = within_x + within_y - 2 * kernel(0, d + square, 0)

    def make(seed):
        return gaussian(100, d, seed=seed), gaussian(120, d, shift=shift, seed=seed + 1)

    assert coverage(kid_draws, kid, truth, make) == pytest.approx(0.9, abs=0.06)


def test_with_fewer_images_than_features_the_interval_is_about_the_fid_of_such_sets():
    """There the draws' FIDs all lie above it, and the draws' spread is too large rather than too small."""

    def make(seed):
        return gaussian(20, 40, seed=seed), gaussian(25, 40, shift=0.3, seed=seed + 1)

    fresh = np.array([distance(*make(10_000 + 2 * seed)) for seed in range(200)])
    drawn = frechet_draws(*make(1), 100)
    assert drawn.min() > distance(*make(1))
    assert fresh.std() < drawn.std() < 3 * fresh.std()
    inside = 0
    for seed in range(30):
        x, y = make(2 * seed + 1)
        low, high = interval(torch.tensor(distance(x, y)), frechet_draws(x, y, 60, seed), 0.9)
        inside += bool(low <= fresh.mean() <= high)
    assert inside >= 27


def test_draws_of_copies_of_a_single_image_are_left_out_of_kid():
    x, y = gaussian(3), gaussian(3, seed=1)
    drawn = kid_draws(x, y, 200)
    assert drawn.isfinite().all() and 100 < len(drawn) < 200
    some = {varied_draws(seed): seed for seed in range(99)}
    for too_few in (0, 1):
        with pytest.raises(EvaluationError, match="too few"):
            kid_draws(x[:2], y[:2], 2, seed=some[too_few])
    assert len(kid_draws(x[:2], y[:2], 2, seed=some[2])) == 2


def varied_draws(seed):
    """Of two, from two images of either side: those with both images of both sides."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (times_drawn(2, 2, generator) for _ in range(2))
    return ((a == 1).all(1) & (b == 1).all(1)).sum().item()
