"""Paired pictures: what happens to one side's geometry happens to the other's, in the same draw."""

from __future__ import annotations

from pathlib import Path

import torch

from cyclegan.config import ConfigError, Data
from cyclegan.data.dataset import Draw, UnpairedDataset
from cyclegan.data.images import ImageError


class PairedDataset(UnpairedDataset):
    """Pictures at the same place of both lists; see UnpairedDataset for the arguments.

    Raises ConfigError if an augmentation would move the pixels of one side only.
    """

    def __init__(self, files: dict[str, list[Path]], data: Data, seed: int, multiple: int = 4):
        super().__init__(files, data, seed, multiple)
        for domain in ("A", "B"):
            if self.masks[domain]:
                raise ConfigError(f"data.{domain}.mask: not with data.pairing=paired")
        if data.A.augment != data.B.augment:
            for transform in self.transforms.values():
                if transform.augment:
                    transform.augment.check_keeps_places()

    def _pair(self, draw: Draw, skipped: list[str]) -> dict[str, torch.Tensor]:
        """A pair of which both files are sound; one seed for both, so that all is drawn alike."""
        first, length = self._shuffled(draw, "A"), len(self.files["A"])
        seed = self._drawn(draw, "A", "crop")
        for step in range(length):
            paths = {domain: self.files[domain][(first + step) % length] for domain in ("A", "B")}
            try:
                pixels = {domain: self.transforms[domain].load(path) for domain, path in paths.items()}
            except ImageError as error:
                skipped.append(str(error))
                continue
            if pixels["A"].shape[:2] != pixels["B"].shape[:2]:
                raise ImageError(
                    f"data.pairing: {paths['A']} and {paths['B']} differ in size; as pairs they need "
                    "data.resize=resize_and_crop"
                )
            return {domain: self.transforms[domain].augmented(pixels[domain], seed) for domain in ("A", "B")}
        raise ImageError(f"no readable pair among the {length}; the first: {skipped[0]}")
