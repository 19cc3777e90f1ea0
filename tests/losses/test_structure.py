from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import sobel
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.image import total_variation as their_total_variation

from cyclegan.losses.structure import edge_agreement, edges, ms_ssim, ssim, total_variation


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(shape[0], shape[1], 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, size=shape[2:], mode="bicubic").clamp(-1, 1)


def theirs(x: torch.Tensor, y: torch.Tensor, contrast: bool = False) -> torch.Tensor:
    """torchmetrics, in whole windows only (its mean of SSIM takes in a mirrored border)."""
    given = {"data_range": 1.0, "reduction": "none", "return_contrast_sensitivity": contrast}
    measured = structural_similarity_index_measure((x + 1) / 2, (y + 1) / 2, return_full_image=not contrast, **given)
    return measured[1] if contrast else measured[1][..., 5:-5, 5:-5].mean((1, 2, 3))


def test_ssim_is_torchmetrics_in_single_precision():
    x, y = pictures(2, 3, 24, 31), pictures(2, 3, 24, 31, seed=1)
    assert torch.allclose(ssim(x, y), theirs(x, y), atol=1e-5)


def test_ssim_of_black_and_a_flat_grey_follows_from_k1():
    black, grey = torch.full((1, 1, 12, 12), -1.0), torch.full((1, 1, 12, 12), -0.98)  # 0.01 of white
    assert ssim(black, grey).item() == pytest.approx(0.01**2 / (0.01**2 + 0.01**2), rel=1e-4)


def test_ms_ssim_is_the_product_of_torchmetrics_parts():
    x, noise = pictures(2, 3, 176, 180), pictures(2, 3, 176, 180, seed=1)
    y = (0.7 * x + 0.3 * noise).clamp(-1, 1)
    scales, expected = [(x, y)], 1.0
    for _ in range(4):
        scales.append(tuple(F.avg_pool2d(picture, 2) for picture in scales[-1]))
    for exponent, (a, b) in zip((0.0448, 0.2856, 0.3001, 0.2363), scales, strict=False):
        expected = expected * theirs(a, b, contrast=True) ** exponent
    expected = expected * theirs(*scales[-1]) ** 0.1333
    assert torch.allclose(ms_ssim(x, y), expected, atol=1e-5)
    assert torch.allclose(ms_ssim(x, x), torch.ones(2), atol=1e-5)


def test_too_small_pictures_are_refused():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(pictures(1, 3, 10, 20), pictures(1, 3, 10, 20))
    with pytest.raises(ValueError, match="at least 176 pixels"):
        ms_ssim(pictures(1, 3, 175, 200), pictures(1, 3, 175, 200))


def test_total_variation_is_torchmetrics_per_difference():
    x = pictures(1, 3, 5, 7)
    across, along = x[..., 1:] - x[..., :-1], x[:, :, 1:] - x[:, :, :-1]
    assert total_variation(x).item() == pytest.approx(across.abs().mean().item() + along.abs().mean().item())
    assert across.abs().sum().item() + along.abs().sum().item() == pytest.approx(
        their_total_variation(x).item(), rel=1e-5
    )
    assert total_variation(torch.full((2, 1, 4, 4), 0.3)).tolist() == [0, 0]


def test_moved_edges_cost_and_colours_do_not():
    square = torch.full((1, 3, 32, 32), -1.0)
    square[..., 8:16, 8:16] = 1
    assert edge_agreement(square, square.roll(12, dims=3)).item() < 0.1
    assert edge_agreement(square, -square * 0.5).item() == pytest.approx(1, abs=1e-4)


def test_the_edges_of_a_slope_are_its_steepness():
    down, right = torch.arange(5.0)[:, None], torch.arange(6.0)
    assert torch.allclose(edges((0.3 * right + 0.4 * down)[None, None]), torch.full((1, 3, 4), 0.5))


def test_edges_agree_as_the_lengths_of_scipys_gradients_correlate():
    x, y = pictures(2, 3, 12, 15).double(), pictures(2, 3, 12, 15, seed=1).double()

    def lengths(picture: torch.Tensor) -> np.ndarray:
        grey = np.tensordot([0.299, 0.587, 0.114], picture.numpy(), axes=1)
        return np.hypot(sobel(grey, 0), sobel(grey, 1))[1:-1, 1:-1].ravel()  # whole windows

    expected = [np.corrcoef(lengths(a), lengths(b))[0, 1] for a, b in zip(x, y, strict=True)]
    assert edge_agreement(x, y).tolist() == pytest.approx(expected, rel=1e-6)
    grey = x[:, :1], y[:, :1]
    assert torch.allclose(edge_agreement(*grey), edge_agreement(*(picture.expand(-1, 3, -1, -1) for picture in grey)))


@pytest.mark.parametrize("function", [ssim, edge_agreement, lambda x, y: total_variation(x)])
def test_gradients_are_right_and_finite_for_flat_pictures_too(function):
    x, y = pictures(1, 3, 12, 13).double().requires_grad_(), pictures(1, 3, 12, 13, seed=1).double()
    assert torch.autograd.gradcheck(lambda z: function(z, y), x, atol=1e-4)
    flat = torch.zeros(1, 3, 12, 13, requires_grad=True)
    function(flat, y.float()).sum().backward()
    assert flat.grad.isfinite().all()


def test_ms_ssim_has_gradients_for_opposites():
    x = pictures(1, 1, 176, 176).requires_grad_()
    ms_ssim(x, -x.detach()).sum().backward()  # similarities below 0 have no power of 0.0448
    assert x.grad.isfinite().all()
