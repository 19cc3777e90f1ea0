"""LPIPS through its authors' package (`pip install lpips`), with the trunk's weights from a file that you name.

Zhang et al. (arXiv 1801.03924), version 0.1. Paired with the truth, lower is closer; between several outputs of one
input, higher is more diverse.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.networks.pretrained import MissingPackageError, WeightsError

SMALLEST = {"alex": 31, "vgg": 16}  # pixels of a side: of smaller pictures nothing is left at the trunk's end


def lpips_from(
    weights: Path | str, trunk: str = "alex", device: torch.device | str = "cpu"
) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance of two (n, 3, h, w) batches in [-1, 1] as (n,) values.

    `weights` is torchvision's file for the trunk (`alex` or `vgg`: alexnet-owt-7be5be79.pth, vgg16-397923af.pth); the
    package brings its own linear layers. Raises MissingPackageError or WeightsError, which name what is missing.
    """
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise MissingPackageError("LPIPS needs its package: pip install lpips (or cyclegan[metrics])") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchvision's, on the old arguments that lpips passes
        network = LPIPS(net=trunk, pnet_rand=True, verbose=False)
    _load_trunk(network.net, weights)
    network.to(device).requires_grad_(False)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        if min(x.shape[2:]) < SMALLEST[trunk]:
            raise EvaluationError(f"LPIPS on {trunk} needs sides of {SMALLEST[trunk]} pixels, got {tuple(x.shape[2:])}")
        return network(x.float(), y.float()).flatten()

    return distance


def _load_trunk(trunk: torch.nn.Module, weights: Path | str) -> None:
    """lpips keeps torchvision's `features.7` as `slice3.7`."""
    if not Path(weights).is_file():
        raise WeightsError(f"no weights file {weights}: LPIPS takes torchvision's for its trunk")
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        trunk.load_state_dict({key: state["features." + key.split(".", 1)[1]] for key in trunk.state_dict()})
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        raise WeightsError(
            f"{weights} does not fit LPIPS's trunk: damaged, or not torchvision's alexnet-owt-7be5be79.pth (alex) or "
            "vgg16-397923af.pth (vgg)"
        ) from error
