"""The bootstrap: how far a number would move if other images of the same two kinds had been taken.

Each draw takes as many images as there are, with replacement (Efron 1979). Drawn sets are poorer than the sets that
they are drawn from, so the draws' FIDs lie above the FID: by about FID's own bias where there are many more images than
features, by far less than that where there are fewer. Their quantiles as they are (percentile interval) may not even
hold the FID; reflecting them (basic interval) subtracts a bias twice that is not known once. So the quantiles are moved
by the draws' mean excess: an interval for the FID that such numbers of images have on average, bias and all.
"""

from __future__ import annotations

import torch
from torch import Tensor

METHOD = "bootstrap percentiles moved so that the draws' mean is the estimate: chance at these counts, not FID's bias"


def times_drawn(n: int, draws: int, generator: torch.Generator) -> Tensor:
    """How often each of n images comes up when n are drawn with replacement, (draws, n) float64."""
    chosen = torch.randint(n, (draws, n), generator=generator)
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, chosen, torch.ones_like(chosen).double())


def interval(estimate: Tensor, drawn: Tensor, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
    """Confidence interval for the mean of `estimate` over sets of these sizes, from its values on (draws,) draws.

    The percentile interval, moved so that the draws' mean comes to lie on the estimate.
    """
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=drawn.dtype)
    low, high = drawn.quantile(tails) - drawn.mean() + estimate
    return low, high
