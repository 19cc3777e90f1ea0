"""Unpaired pictures as batches {"A": x, "B": y}: the same ones whatever the number of workers and processes.

Where a domain has masks, they come as "A_mask" and "B_mask", cropped and flipped with their pictures.
Nothing here remembers anything: which pictures make a pair, and how they are cropped, follows from
(seed, epoch, place in the epoch, domain) alone. That makes resuming in mid-epoch a matter of starting at a place.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cyclegan.config import ConfigError, Data
from cyclegan.data.bundles import PREFETCH, Bundles, Part, Read, Unbundled, batches_a_message, bundled
from cyclegan.data.folders import find_folder
from cyclegan.data.images import ImageError, scaled
from cyclegan.data.masks import find_masks
from cyclegan.data.transforms import Transform

JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}

# By which a scheduler or the keyboard asks a run to stop.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


class Draw(NamedTuple):
    epoch: int
    place: int


class UnpairedDataset(Dataset):
    """A in (shuffled) order, B at random for each A, as in the reference; `dataset[Draw(epoch, place)]`.

    Args:
        files: pictures by domain
        data: the run's data section
        seed: the run's seed
        multiple: what the generators ask of the sides
    """

    def __init__(self, files: dict[str, list[Path]], data: Data, seed: int, multiple: int = 4):
        self.files, self.seed = files, seed
        self.pairing, self.shuffle = data.pairing, data.shuffle
        self.masks = {domain: find_masks(data, domain, paths) for domain, paths in files.items()}
        self.transforms = {domain: Transform(data, domain, multiple) for domain in files}
        for domain, paths in files.items() if data.cache else ():
            if self.masks[domain]:
                raise ConfigError(f"data.cache: not with masks (data.{domain}.mask)")
            root = find_folder(data, "train", domain)
            folder = root.parent / ".cache" if data.cache is True else data.cache
            self.transforms[domain].keep(folder, domain, root, paths)

    def __getitem__(self, draw: Draw) -> dict:
        skipped: list[str] = []
        try:
            pair = self._pair(draw, skipped)
        except ImageError as error:  # as a value: out of a worker, an exception comes with its traceback
            return {"problem": str(error), "skipped": skipped}
        return {**pair, "problem": None, "skipped": skipped}

    def _pair(self, draw: Draw, skipped: list[str]) -> dict[str, torch.Tensor]:
        if self.pairing == "ordered":
            longer = max(self.files, key=lambda domain: len(self.files[domain]))
            place = self._shuffled(draw, longer)
            first, second = (place % len(self.files[domain]) for domain in ("A", "B"))
        else:
            first = self._shuffled(draw, "A")
            second = self._drawn(draw, "B", "picture") % len(self.files["B"])
        return {**self._read(draw, "A", first, skipped), **self._read(draw, "B", second, skipped)}

    def _shuffled(self, draw: Draw, domain: str) -> int:
        """Each picture once before any comes again, in an order of its own each time round."""
        length = len(self.files[domain])
        turn, place = divmod(draw.place, length)
        if not self.shuffle:
            return place
        return int(_order(self.seed, draw.epoch, turn, domain, length)[place])

    def _drawn(self, draw: Draw, domain: str, what: str) -> int:
        """64 random bits, by a hash: to make a generator for one number costs a tenth of reading a picture."""
        place = f"{self.seed} {draw.epoch} {draw.place} {domain} {what}"
        return int.from_bytes(blake2b(place.encode(), digest_size=8).digest(), "big")

    def _read(self, draw: Draw, domain: str, index: int, skipped: list[str]) -> dict[str, torch.Tensor]:
        """The picture at `index`, or if that one is damaged, the next sound one: the loop decides if that will do."""
        files = self.files[domain]
        seed = self._drawn(draw, domain, "crop")
        for step in range(len(files)):
            path = files[(index + step) % len(files)]
            try:
                if path in self.masks[domain]:
                    picture, mask = self.transforms[domain].with_mask(path, self.masks[domain][path], seed)
                    return {domain: picture, f"{domain}_mask": mask}
                return {domain: self.transforms[domain](path, seed)}
            except ImageError as error:
                skipped.append(str(error))
        raise ImageError(f"no readable picture among the {len(files)} of domain {domain}; the first: {skipped[0]}")


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, turn: int, domain: str, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, turn, ord(domain)]).permutation(length)


class EpochBatches(Sampler):
    """The batches of one process in one epoch, from batch `start` on.

    A global batch is the next `world * batch_size` places of the epoch and each process takes its slice, so N
    processes with batch b see what one with batch N * b sees. All processes have the same number of batches; what
    does not fill a last one waits for the next epoch (in another order).
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world: int = 1, limit: int | None = None):
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.length = max(1, length // (batch_size * world))
        if limit:
            self.length = min(self.length, limit)
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, start = self.epoch, self.start
        for batch in range(start, self.length):
            first = (batch * self.world + self.rank) * self.batch_size
            yield [Draw(epoch, place) for place in range(first, first + self.batch_size)]


def epoch_length(files: dict[str, list[Path]], epoch_size: str | int) -> int:
    """Pairs an epoch."""
    sizes = [len(paths) for paths in files.values()]
    return epoch_size if isinstance(epoch_size, int) else {"max": max, "min": min, "sum": sum}[epoch_size](sizes)


def collate(items: list[dict], batch_size: int) -> list[Part]:
    """A message: the batches that these pairs make."""
    return bundled([_batch(items[first : first + batch_size]) for first in range(0, len(items), batch_size)])


def _batch(items: list[dict]) -> Read:
    """What to report, damaged files ("skipped") and what is wrong ("problem"), and the pictures if nothing is wrong."""
    skipped = [message for item in items for message in item["skipped"]]
    report = {"problem": next((item["problem"] for item in items if item["problem"]), None), "skipped": skipped}
    if report["problem"]:
        return report, {}
    pictures = {}
    for domain in (name for name in items[0] if name not in report):
        images = [item[domain] for item in items]
        sizes = {tuple(image.shape[1:]) for image in images}
        if len(sizes) > 1:
            problem = (
                f"data.resize: pictures of {domain} come out in different sizes {sorted(sizes)}; "
                "use training.batch_size=1 or a resize that ends in a crop"
            )
            return {**report, "problem": problem}, {}
        deep = any(image.is_floating_point() for image in images)
        pictures[domain] = [scaled(image) for image in images] if deep else images
    return report, pictures


def _start_worker(_: int) -> None:
    """A scheduler signals the whole group of processes; the loop still wants pictures until it has saved."""
    cv2.setNumThreads(0)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def new_loader(dataset: UnpairedDataset, batches: EpochBatches, workers: int, pin_memory: bool) -> Unbundled:
    """Workers live as long as the loader; a worker's torch and OpenCV use one thread."""
    cv2.setNumThreads(0)  # for a picture of 256x256, waking other threads takes longer than the work
    loader = DataLoader(
        dataset,
        batch_sampler=Bundles(batches, _batches_a_message(dataset, batches, workers)),
        collate_fn=partial(collate, batch_size=batches.batch_size),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else each epoch draws a seed from the global one: a resumed run once too often
    )
    return Unbundled(loader)


def _batches_a_message(dataset: UnpairedDataset, batches: EpochBatches, workers: int) -> int:
    if not workers or not all(transform.crop for transform in dataset.transforms.values()):
        return 1  # without a crop, sizes are not known
    pair = sum(_most_bytes(dataset, domain) for domain in dataset.files)
    return batches_a_message(batches.batch_size, pair, len(batches), workers, batches.world)


def _most_bytes(dataset: UnpairedDataset, domain: str) -> int:
    """Of a crop with its mask: floats, but for pictures that are surely of 8 bits."""
    transform = dataset.transforms[domain]
    shallow = all(path.suffix.lower() in JPEG for path in dataset.files[domain])
    values = transform.read.channels * (1 if shallow else 4) + (4 if dataset.masks[domain] else 0)
    return math.prod(transform.crop_size) * values
