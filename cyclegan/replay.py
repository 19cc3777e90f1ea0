"""The pool of past fakes that discriminators are shown (Shrivastava et al. 2017, section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReplayPool(nn.Module):
    """Keeps `size` generated pictures, so that a discriminator does not forget earlier mistakes.

    A module without parameters: its pictures travel in the state dict (as extra state), a pool for each process.
    Draws come from torch's global CPU generator, so its state is all there is to restore.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.images: list[Tensor] = []

    def swap(self, images: Tensor) -> Tensor:
        """(N, C, H, W) new fakes in, as many out, detached: while the pool fills, the new ones; then each is with
        probability 1/2 exchanged for a stored one, whose place it takes."""
        if self.size == 0:
            return images.detach()
        return torch.stack([self._swap_one(image) for image in images.detach()])

    def _swap_one(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if torch.rand(()) > 0.5:
            place = int(torch.randint(self.size, ()))
            past, self.images[place] = self.images[place], image.clone()
            # A resumed pool lies on the CPU; after a change of crop_size its pictures have another size: of no use.
            return past.to(image) if past.shape == image.shape else image
        return image

    def get_extra_state(self) -> list[Tensor]:
        return list(self.images)

    def set_extra_state(self, state: list[Tensor]) -> None:
        self.images = list(state)[: self.size]
