"""Starting weights."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

Init = Literal["normal", "xavier", "kaiming", "orthogonal"]


def initialize(network: nn.Module, init: Init = "normal", gain: float = 0.02) -> nn.Module:
    """Draw the weights of all convolutions and linear layers in place; biases start at 0, batch norm at N(1, gain).

    `gain` is the standard deviation for `normal`, the gain for `xavier` and `orthogonal`, unused for `kaiming`.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            normalised = is_parametrized(module, "weight")  # spectral norm: what is trained is the original
            _draw(module.parametrizations.weight.original if normalised else module.weight, init, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain)
            nn.init.zeros_(module.bias)
    return network


def _draw(weight: nn.Parameter, init: Init, gain: float) -> None:
    if init == "normal":
        nn.init.normal_(weight, 0.0, gain)
    elif init == "xavier":
        nn.init.xavier_normal_(weight, gain)
    elif init == "kaiming":
        nn.init.kaiming_normal_(weight, a=0, mode="fan_in")
    else:
        nn.init.orthogonal_(weight, gain)
