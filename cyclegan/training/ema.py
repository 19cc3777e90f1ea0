"""The average of the generators' weights over past updates: what is shown, scored and exported when it is on."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Ema(nn.Module):
    """An average for each generator, with `decay` after a start-up in which it forgets faster.

    The start-up, min(decay, (1 + n) / (10 + n)) at update n, keeps the untrained weights out of short runs.

    Args:
        generators: networks by direction, as the optimizer updates them
        decay: share of the old average that an update keeps
    """

    def __init__(self, generators: dict[str, nn.Module], decay: float):
        super().__init__()
        self.decay, self.updates = decay, 0
        self.averages = nn.ModuleDict({direction: AveragedModel(network) for direction, network in generators.items()})

    @torch.no_grad()
    def update(self, generators: dict[str, nn.Module]) -> None:
        """Not by AveragedModel's own, which takes a counter to the GPU and waits there until all is computed."""
        first = self.updates == 0
        self.updates += 1
        kept = 0.0 if first else min(self.decay, (1 + self.updates) / (10 + self.updates))
        for direction, average in self.generators().items():
            network = generators[direction]
            torch._foreach_lerp_([*average.parameters()], [*network.parameters()], 1 - kept)
            for buffer, value in zip(average.buffers(), network.buffers(), strict=True):
                buffer.copy_(value)

    def generators(self) -> dict[str, nn.Module]:
        return {direction: average.module for direction, average in self.averages.items()}

    def get_extra_state(self) -> int:
        return self.updates

    def set_extra_state(self, state: int) -> None:
        self.updates = state
