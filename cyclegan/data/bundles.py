"""Several batches in one message from a worker to the loop: to send one by itself costs more than to read it.

In a worker a batch is what there is to report of it and, by domain, a list of its pictures, alike in size and type. In
a message those of one kind that follow each other are one tensor a domain, which the loop takes apart without a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice

from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

Read = tuple[dict, dict[str, list[Tensor]]]  # N pictures of (C, H, W)
Part = tuple[list[dict], dict[str, Tensor]]  # of a message; (batches * N, C, H, W)

MOST = 32  # pairs a message, where batches are smaller: more would save little
MESSAGES = 4  # that each worker has of an epoch, at least: else one would be long at the last
PREFETCH = 2  # messages that each worker reads ahead
READ_AHEAD = 2**25  # bytes of all of these at the most: half of what Docker gives /dev/shm


class Bundles(Sampler):
    """The indices of up to `most` batches at a time; of one, two, four at first, so that a start waits for one only."""

    def __init__(self, batches: Iterable[list], most: int):
        self.batches, self.most = batches, most

    def __iter__(self) -> Iterator[list]:
        batches, count = iter(self.batches), 1
        while bundle := list(islice(batches, count)):
            yield list(chain.from_iterable(bundle))
            count = min(2 * count, self.most)


class Unbundled:
    """The batches of one epoch after another, {"A", "B" and what is reported of them}, out of a loader's messages."""

    def __init__(self, messages: DataLoader):
        self.messages = messages

    def __iter__(self) -> Iterator[dict]:
        return unbundled(iter(self.messages))  # workers start here, not when the first batch is asked for


def batches_a_message(batch_size: int, pair_bytes: int, epoch: int, workers: int, processes: int = 1) -> int:
    """How many batches go together: in reach of the memory, and so that all workers have their share of an epoch.

    Args:
        batch_size: pairs a batch
        pair_bytes: bytes of a pair in a message, at the most
        epoch: batches of an epoch in this process
        workers: of this process
        processes: all, each with as many workers
    """
    ahead = PREFETCH * workers
    fitting = READ_AHEAD // (batch_size * pair_bytes * ahead * processes)
    return max(1, min(MOST // batch_size, epoch // (MESSAGES * workers), fitting))


def bundled(batches: list[Read]) -> list[Part]:
    """Batches as a message."""
    return [_end_to_end(list(alike)) for _, alike in groupby(batches, _kind)]


def unbundled(messages: Iterable[list[Part]]) -> Iterator[dict]:
    """The batches of messages, one by one."""
    for reports, pictures in chain.from_iterable(messages):
        batches = {name: images.chunk(len(reports)) for name, images in pictures.items()}
        for place, report in enumerate(reports):
            yield {**report, **{name: images[place] for name, images in batches.items()}}


def _kind(batch: Read) -> dict:
    return {name: (images[0].shape, images[0].dtype) for name, images in batch[1].items()}


def _end_to_end(batches: list[Read]) -> Part:
    reports, pictures = zip(*batches, strict=True)
    return list(reports), {name: _stacked([image for of in pictures for image in of[name]]) for name in pictures[0]}


def _stacked(images: list[Tensor]) -> Tensor:
    """(N, C, H, W), channels_last; one picture as it is."""
    if len(images) == 1:
        return images[0].unsqueeze(0)
    pixels = [image.permute(1, 2, 0) for image in images]  # (height, width, channels), as they lie in memory
    return default_collate(pixels).permute(0, 3, 1, 2)  # in a worker, straight into memory that it shares
