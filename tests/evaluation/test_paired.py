import numpy as np
import pytest
import torch

from cyclegan.evaluation.paired import mae, psnr, ssim


def pictures(seed=0, size=(2, 3, 16, 19)):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def ssim_by_loops(x, y):
    """Wang et al. 2004, equation 13, window by window, for one channel in [0, 255]."""
    x, y = (x + 1) * 127.5, (y + 1) * 127.5
    window = np.array([[np.exp(-(i**2 + j**2) / (2 * 1.5**2)) for j in range(-5, 6)] for i in range(-5, 6)])
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return np.mean(values)


def test_ssim_is_the_formula_of_the_paper():
    x, y = pictures(0), pictures(1) * 0.5
    expected = [np.mean([ssim_by_loops(x[i, c].numpy(), y[i, c].numpy()) for c in range(3)]) for i in range(2)]
    np.testing.assert_allclose(ssim(x, y), expected, rtol=1e-5)


def test_equal_pictures_have_no_error():
    x = pictures()
    assert torch.allclose(ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert mae(x, x).tolist() == [0, 0]
    assert psnr(x, x).tolist() == [float("inf")] * 2


def test_a_constant_error_of_a_tenth_of_the_range_is_20_db():
    x = torch.full((1, 3, 4, 4), -0.3)
    assert psnr(x, x + 0.2).item() == pytest.approx(20, rel=1e-5)
    assert mae(x, x + 0.2).item() == pytest.approx(0.2, rel=1e-5)


def test_unequal_shapes_and_tiny_pictures_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        psnr(pictures(), pictures(size=(2, 3, 8, 8)))
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(pictures(size=(1, 3, 10, 40)), pictures(size=(1, 3, 10, 40)))
