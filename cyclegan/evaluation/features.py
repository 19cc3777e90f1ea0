"""Features of many pictures: read by worker processes, shared out over ranks, gathered in the order of the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from cyclegan.evaluation.extractors import Extractor


def read_rgb(path: Path) -> Tensor:
    """A picture as uint8 (3, h, w), read as every FID tool reads it: Pillow's convert("RGB") and nothing else."""
    with Image.open(path) as image:
        return pil_to_tensor(image.convert("RGB"))


def features_of_files(
    files: Sequence[Path],
    extractor: Extractor,
    read: Callable[[Path], Tensor] = read_rgb,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = False,
) -> Tensor:
    """(n, d) float32 features of picture files of any sizes, in their order."""
    loader = DataLoader(_Reader(files, read), batch_size, num_workers=workers, collate_fn=list)
    batches = tqdm(loader, unit="batch", disable=None if progress else True, leave=False)
    return torch.cat([extractor(pictures) for pictures in batches])


class _Reader(torch.utils.data.Dataset):
    def __init__(self, files: Sequence[Path], read: Callable[[Path], Tensor]):
        self.files, self.read = files, read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return self.read(self.files[index])
