"""Pictures a second from the loader, and how long training waits for them, against the loader that everybody writes.

    python benchmarks/data.py [--root datasets/horse2zebra] [--batch 1 16] [--workers 0 1] [--json data.json]

In turns in one run: the reference's loader (reference.py), ours from the files, ours from `data.cache`. Counted are
seconds of processors, in all processes together: pictures a second are those of one core that does nothing else, even
if the machine does. "loaded" ends with the batch in the training process, as it goes to a GPU; "delivered" with planes
of float32 in [-1, 1] on the CPU, which is what the reference's loader gives at once. Ratios are medians over turns.
Without --root, 200 random JPEGs of 256x256 are made.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from machine import about
from PIL import Image
from reference import CycleGAN, loader
from step import synchronize

from cyclegan.algorithms import complete_config
from cyclegan.config import Config, load_config
from cyclegan.data.bundles import MOST
from cyclegan.data.dataset import EpochBatches, UnpairedDataset, epoch_length, new_loader
from cyclegan.data.delivery import new_delivery
from cyclegan.data.folders import find_split
from cyclegan.training.auto import with_speed
from cyclegan.training.launch import new_accelerator
from cyclegan.training.trainer import Trainer

Batches = Iterator[dict[str, torch.Tensor]]
MODES = ("reference", "files", "cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with trainA and trainB")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="pairs (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1], help="loader processes (%(default)s)")
    parser.add_argument("--pairs", type=int, default=256, help="of a turn (%(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="of each (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of training, to see it wait; 0: none (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="of the networks that are trained (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the training process on a CPU (%(default)s)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        options.root = options.root or random_pictures(Path(scratch))
        options.cache = Path(scratch) / "cache"
        began = time.perf_counter()
        dataset("cache", 1, options)
        made = time.perf_counter() - began
        rows = [row for batch in options.batch for n in options.workers for row in compare(batch, n, options)]
        waits = waiting(options) if options.steps else []
    where = about(options.threads, options.device)
    print(f"{where['machine']}; the cache was made in {made:.1f} s")
    print("| batch | workers | | loaded/s a core | ratio | delivered/s a core | ratio |\n|" + "---|" * 7)
    for row in rows:
        print(
            f"| {row['batch']} | {row['workers']} | {row['mode']} | {row['loaded']:.0f} | {row['loaded ratio']:.1f} | "
            f"{row['delivered']:.0f} | {row['delivered ratio']:.1f} |"
        )
    for row in waits:
        print(f"{row['mode']}: training at {row['pairs/s']:.3g} pairs/s waits {row['waits']:.2%} of the time")
    if options.json:
        results = {**where, "seconds to make the cache": made, "rows": rows, "training": waits}
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def random_pictures(folder: Path, count: int = 100, side: int = 256) -> Path:
    """A data set of noise, coarse and fine, with as many bytes a picture as photographs have."""
    draw = np.random.default_rng(0)
    for domain in "AB":
        (folder / f"train{domain}").mkdir()
        for i in range(count):
            coarse = Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((side, side))
            pixels = np.asarray(coarse, dtype=float) + draw.normal(0, 6, (side, side, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / f"train{domain}" / f"{i}.jpg", quality=80)
    return folder


def compare(batch: int, workers: int, options: argparse.Namespace) -> list[dict]:
    sources = {mode: source(mode, batch, workers, options) for mode in MODES}
    for batches, _ in sources.values():
        for _ in range(2 * MOST if workers else 1):  # until workers are up and messages whole
            next(batches)
    turns = [{mode: turn(*sources[mode], batch, options) for mode in MODES} for _ in range(options.turns)]
    rows = []
    for mode in MODES:
        row = {"batch": batch, "workers": workers, "mode": mode}
        for stage in ("loaded", "delivered"):
            row[stage] = median(turn[mode][stage] for turn in turns)
            row[f"{stage} ratio"] = median(turn[mode][stage] / turn["reference"][stage] for turn in turns)
        rows.append(row)
    return rows


def source(mode: str, batch: int, workers: int, options: argparse.Namespace) -> tuple[Batches, Callable]:
    """Batches without end, and what takes one to the device."""
    device = torch.device(options.device)
    if mode == "reference":
        return endless(loader(options.root, batch, workers)), lambda given: {k: v.to(device) for k, v in given.items()}
    found, pairs = dataset(mode, batch, options)
    batches = EpochBatches(pairs, batch)
    return endless(new_loader(found, batches, workers, pin_memory=device.type == "cuda"), batches), new_delivery(device)


def dataset(mode: str, batch: int, options: argparse.Namespace) -> tuple[UnpairedDataset, int]:
    data = config_of(options, batch, options.cache if mode == "cache" else False).data
    files = find_split(data, "train")
    return UnpairedDataset(files, data, seed=0), epoch_length(files, "max")


def config_of(options: argparse.Namespace, batch: int = 1, cache: Path | bool = False, speed: str = "plain") -> Config:
    return load_config(
        {
            "name": "loader",
            "speed": speed,
            "data": {"root": options.root, "cache": cache},
            "training": {"batch_size": batch},
            "generator": {"name": "resnet", "width": options.width},
            "discriminator": {"name": "patch", "width": options.width},
            "logging": {"trackers": []},
        }
    )


def endless(batches: Iterable[dict], sampler: EpochBatches | None = None) -> Batches:
    while True:
        for batch in batches:
            yield {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        if sampler:
            sampler.epoch += 1


def turn(batches: Batches, deliver: Callable, batch: int, options: argparse.Namespace) -> dict[str, float]:
    """Pictures to a second of one core; workers read ahead as far before a turn as at its end."""
    count = max(2, options.pairs // batch)
    settle()
    delivering, began = 0.0, time.process_time() + workers_seconds()
    for _ in range(count):
        given = next(batches)
        arrived = time.process_time()
        deliver(given)
        delivering += time.process_time() - arrived
    settle()
    seconds = time.process_time() + workers_seconds() - began
    return {"loaded": 2 * batch * count / (seconds - delivering), "delivered": 2 * batch * count / seconds}


def workers_seconds() -> float:
    """Of processors, in all workers so far: of those at work, in hundredths, and those that ended with their epoch."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    at_work = sum(sum(worker.cpu_times()[:2]) for worker in psutil.Process().children())
    return at_work + ended.ru_utime + ended.ru_stime


def settle() -> None:
    """Wait until workers have read as far ahead as they do."""
    seconds, before = workers_seconds(), -1.0
    while seconds > before and psutil.Process().children():
        before = seconds
        time.sleep(0.3)
        seconds = workers_seconds()


def waiting(options: argparse.Namespace) -> list[dict]:
    """How much of the time real updates wait for the next batch on the device, with one worker.

    On a CPU by the clock around each batch. On a GPU the program runs ahead, and what it waits the GPU may not notice:
    there by how much longer the updates take than as many with one batch that is on the device already.
    """
    rows, device, batch_size = [], torch.device(options.device), options.batch[0]
    config = with_speed(complete_config(config_of(options, batch_size, speed="auto")), device, "none")[0]
    with new_accelerator(config) as accelerator:
        ours = Trainer(config, accelerator)
        plain = CycleGAN(device, options.width)
        updates = dict.fromkeys(MODES, lambda batch: ours.update(batch, 1.0))
        updates["reference"] = lambda batch: plain.step(batch["A"], batch["B"])
        for mode, update in updates.items():
            batches, deliver = source(mode, batch_size, 1, options)
            batch = deliver(next(batches))  # workers are up
            for _ in range(1 if device.type == "cpu" else 10):
                update(dict(batch))
            synchronize(device)
            waited, seconds = stepped(update, batches, deliver, options.steps, device)
            if device.type != "cpu":
                _, alone = stepped(update, repeat(batch), dict, options.steps, device)
                waited = max(0.0, seconds - alone)
            rows.append({"mode": mode, "waits": waited / seconds, "pairs/s": batch_size * options.steps / seconds})
    return rows


def stepped(
    update: Callable, batches: Batches, deliver: Callable, steps: int, device: torch.device
) -> tuple[float, float]:
    """Seconds in which the program waited for batches, and in all."""
    waited, began = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = deliver(next(batches))
        waited += time.perf_counter() - asked
        update(batch)
    synchronize(device)
    return waited, time.perf_counter() - began


if __name__ == "__main__":
    main()
