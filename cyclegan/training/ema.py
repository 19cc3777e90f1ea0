"""The average of the generators' weights over past updates: what is shown, scored and exported when it is on."""

from __future__ import annotations

from torch import Tensor, nn
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
        self.averages = nn.ModuleDict(
            {direction: AveragedModel(network, multi_avg_fn=self._mix) for direction, network in generators.items()}
        )

    def update(self, generators: dict[str, nn.Module]) -> None:
        self.updates += 1
        for direction, network in generators.items():
            self.averages[direction].update_parameters(network)

    def generators(self) -> dict[str, nn.Module]:
        return {direction: average.module for direction, average in self.averages.items()}

    def _mix(self, averages: list[Tensor], current: list[Tensor], _: Tensor) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, value in zip(averages, current, strict=True):
            average.lerp_(value, 1 - decay)

    def get_extra_state(self) -> int:
        return self.updates

    def set_extra_state(self, state: int) -> None:
        self.updates = state
