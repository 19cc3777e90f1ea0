"""The way of a batch from the loader to the device: as bytes, on a GPU beside what it is still computing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cyclegan.data.images import scaled

Batch = dict[str, Tensor]  # "A", "B" and what belongs to them: (N, C, H, W), uint8 or in [-1, 1]


def new_delivery(
    device: torch.device, layout: torch.memory_format = torch.contiguous_format
) -> Callable[[Batch], Batch]:
    """A function that takes a batch to the device, its pictures to [-1, 1].

    Off GPUs in the layout that is wanted: that is cheaper made of bytes than of floats.
    """
    if device.type != "cuda":
        return partial(_moved, device=device, layout=layout)
    return partial(_moved_beside, device=device, stream=torch.cuda.Stream(device))


def _moved(batch: Batch, device: torch.device, layout: torch.memory_format = torch.preserve_format) -> Batch:
    beside = device.type == "cuda"  # elsewhere nothing says when memory that was copied from may be written again
    return {
        name: scaled(images.to(device, non_blocking=beside, memory_format=layout)) for name, images in batch.items()
    }


def _moved_beside(batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> Batch:
    """From pinned memory on a stream of its own: as the loop never waits for the GPU, it is still at the last batch."""
    current = torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        batch = _moved(batch, device)
    current.wait_stream(stream)
    for images in batch.values():
        images.record_stream(current)  # else its memory could be written again while this stream still reads it
    return batch
