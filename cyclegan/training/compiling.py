"""torch.compile, for the networks that are trained."""

from __future__ import annotations

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import nn

GRAPHS = ("reduce-overhead", "max-autotune")  # modes that record CUDA graphs


def compile_training(network: nn.Module, mode: str | None, one_size: bool) -> None:
    """Compile what it does in training; in eval mode, where pictures may have any size, it goes on as it is.

    Its own `forward`, which networks of a kind share, and not what Accelerate wraps around it, which is one function
    for all networks: PyTorch compiles a function for eight kinds of calls, and leaves it plain for all others.

    Args:
        network: before Accelerate has prepared it
        mode: of torch.compile
        one_size: pictures have one size and there are few numbers of them at a time: compile for each
    """
    plain = type(network).forward
    compiled = torch.compile(plain, mode=mode, dynamic=False if one_size else None)

    def forward(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        return (compiled if self.training else plain)(self, *inputs, **options)

    network.forward = MethodType(forward, network)  # a copy of the network binds it to itself


def keep_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Let gradients add up in memory of their own.

    Those of a CUDA graph lie in its memory, which it writes over when it runs again, and autograd takes the first of
    several as it comes, to add the others to it (pytorch issues 169545 and 96693).
    """
    for parameter in parameters:
        parameter.register_hook(torch.clone)
