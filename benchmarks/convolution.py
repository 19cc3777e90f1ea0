"""Our convolutions against PyTorch's, in float32 on a CPU: one by one, and a generator's call.

    python benchmarks/convolution.py --channels 256 --sizes 32 64 128 --pictures 128 256 512 --json convolution.json

Winograd's 3x3 ones by channels and sizes; the last one of a generator, its first down-sampling and its last
up-sampling by the pixels of pictures; and a generator's call, which is ours without and with Winograd. Both in turns,
in channels_last; milliseconds are medians. The bounds in `winograd.py` and `strips.py` of `cyclegan/networks` come from
here.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from machine import about, machine
from step import timed
from torch import Tensor, nn

from cyclegan.devices import least_winograd_places
from cyclegan.heap import keep_freed_memory
from cyclegan.networks.layers import ConvToPicture
from cyclegan.networks.resnet import ResnetGenerator
from cyclegan.networks.strips import Conv2d, ConvTranspose2d
from cyclegan.networks.winograd import use_winograd, winograd_conv2d

CPU = torch.device("cpu")


class Layer(NamedTuple):
    name: str
    plain: type[nn.Module]
    ours: type[nn.Module]
    arguments: tuple[int, ...]
    smaller: int = 1  # times that its input is smaller than the picture
    padded: int = 0  # pixels that were added to it


LAYERS = (
    Layer("7x7 to a picture", nn.Conv2d, ConvToPicture, (64, 3, 7), padded=6),
    Layer("down-sampling", nn.Conv2d, Conv2d, (64, 128, 3, 2, 1)),
    Layer("up-sampling", nn.ConvTranspose2d, ConvTranspose2d, (128, 64, 3, 2, 1, 1), smaller=2),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[128, 256], help="in and out (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128], help="places a side (%(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="pictures (%(default)s)")
    parser.add_argument("--pictures", type=int, nargs="*", default=[128, 256], help="pixels a side (%(default)s)")
    parser.add_argument("--turns", type=int, default=9, help="of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="%(default)s")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    print(machine(options.threads))
    print("| | PyTorch, ms | ours, ms | ratio |\n|---|---|---|---|")
    rows = []
    for channels in options.channels:
        for size in options.sizes:
            rows += convolution(channels, size, options)
    for pixels in options.pictures:
        rows += [convolution_of_a_generator(layer, pixels, options) for layer in LAYERS]
        rows.append(generator(pixels, options))
    if options.json:
        options.json.write_text(json.dumps({**about(options.threads), "rows": rows}, indent=1) + "\n")


def convolution(channels: int, size: int, options: argparse.Namespace) -> list[dict]:
    """Forward, and forward with both gradients."""
    shapes = (options.batch, channels, size + 2, size + 2), (channels, channels, 3, 3)
    x, weight = (torch.randn(shape).to(memory_format=torch.channels_last) for shape in shapes)
    gradient = torch.randn(options.batch, channels, size, size).to(memory_format=torch.channels_last)

    def there_and_back(convolve: Callable[[Tensor, Tensor], Tensor]) -> None:
        leaves = x.detach().requires_grad_(), weight.detach().requires_grad_()
        torch.autograd.grad(convolve(*leaves), leaves, gradient)

    name = f"{channels} channels of {size}x{size}"
    return [
        row(name, lambda: F.conv2d(x, weight), lambda: winograd_conv2d(x, weight), options.turns),
        row(
            f"{name}, and back",
            lambda: there_and_back(F.conv2d),
            lambda: there_and_back(winograd_conv2d),
            options.turns,
        ),
    ]


def convolution_of_a_generator(layer: Layer, pixels: int, options: argparse.Namespace) -> dict:
    """Forward with both gradients."""
    plain, ours = (kind(*layer.arguments).to(memory_format=torch.channels_last) for kind in (layer.plain, layer.ours))
    side = pixels // layer.smaller + layer.padded
    x = torch.randn(options.batch, layer.arguments[0], side, side)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(plain(x))

    def there_and_back(conv: nn.Module) -> None:
        torch.autograd.grad(conv(x), (x, conv.weight), gradient)

    name = f"{layer.name}, {pixels} pixels, and back"
    return row(name, lambda: there_and_back(plain), lambda: there_and_back(ours), options.turns)


@torch.inference_mode()
def generator(pixels: int, options: argparse.Namespace) -> dict:
    plain = ResnetGenerator().eval().to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    use_winograd(fast, least_winograd_places(CPU))
    image = torch.rand(options.batch, 3, pixels, pixels).to(memory_format=torch.channels_last) * 2 - 1
    return row(f"a generator, {pixels} pixels", lambda: plain(image), lambda: fast(image), options.turns)


def row(name: str, plain: Callable, fast: Callable, turns: int) -> dict:
    times = [[1000 * timed(compute, CPU)[0] for compute in (plain, fast)] for _ in range(turns + 2)][2:]
    before, after = (median(column) for column in zip(*times, strict=True))
    ratio = median(a / b for a, b in times)
    print(f"| {name} | {before:.1f} | {after:.1f} | {ratio:.2f} |", flush=True)
    return {"name": name, "PyTorch, ms": before, "ours, ms": after, "ratio": ratio}


if __name__ == "__main__":
    main()
