"""Time and memory of the FID against pytorch-fid's, side by side in one run; prints tables and writes JSON.

Needs the dev extras (pytorch-fid) but no weights: both networks get the same random ones. The processes take turns and
the best of several turns counts, so that a busy machine does not decide. Seconds are those of all processors, but of
features on a GPU by the clock; the distance is computed on the CPU in any case, as both do.

    python benchmarks/evaluate.py --json evaluate.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import about, peak_memory
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid.inception import InceptionV3

from cyclegan.evaluation.extractors import inception
from cyclegan.evaluation.features import features_of_files
from cyclegan.evaluation.frechet import frechet_distance
from cyclegan.evaluation.inception import random_state
from cyclegan.evaluation.statistics import Statistics

DIMENSIONS = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[200, 1000, 5000], help="features a side")
    parser.add_argument("--images", type=int, default=100, help="images of 256 x 256 to extract features from")
    parser.add_argument("--batch-size", type=int, default=50, help="of both (default 50, as both have it)")
    parser.add_argument("--turns", type=int, default=3, help="of each side; the best counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="for the features")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--distance", nargs=3, help=argparse.SUPPRESS)  # one turn, in a process with a peak of its own
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.distance:
        return _one_distance(*options.distance)
    results = {
        **about(options.threads, options.device),
        "distances": [_compare_distances(size, options) for size in options.sizes],
        "extraction": _compare_extraction(options),
    }
    _print(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def _features(count: int, seed: int) -> torch.Tensor:
    """Non-negative and of a falling spectrum, like Inception's."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, DIMENSIONS + 1) ** -0.6
    mix = torch.linalg.qr(torch.randn(DIMENSIONS, DIMENSIONS, generator=torch.Generator().manual_seed(0)))[0]
    return (torch.randn(count, DIMENSIONS, generator=generator) * spectrum @ mix + 0.01).relu()


def _ours(x: torch.Tensor, y: torch.Tensor) -> float:
    return frechet_distance(Statistics.of(x), Statistics.of(y)).item()


def _theirs(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x.double().numpy(), y.double().numpy()  # what pytorch-fid keeps its activations in
    moments = [(np.mean(z, axis=0), np.cov(z, rowvar=False)) for z in (x, y)]
    return float(fid_score.calculate_frechet_distance(*moments[0], *moments[1]))


def _one_distance(side: str, *files: str) -> None:
    x, y = (torch.from_numpy(np.load(file)) for file in files)
    before = peak_memory()
    start = time.process_time()  # of all threads; on a busy machine the clock on the wall measures the neighbours
    value = {"ours": _ours, "pytorch-fid": _theirs}[side](x, y)
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "MiB": peak_memory() - before, "value": value}))


def _compare_distances(count: int, options: argparse.Namespace) -> dict:
    turns = {"ours": [], "pytorch-fid": []}
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{seed}.npy" for seed in (1, 2)]
        for seed, file in enumerate(files):
            np.save(file, _features(count, seed).numpy())
        for _ in range(options.turns):
            for side, done in turns.items():
                command = [sys.executable, __file__, "--threads", str(options.threads), "--distance", side, *files]
                lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
                done.append(json.loads(lines[-1]))
    best = {side: min(done, key=lambda turn: turn["seconds"]) for side, done in turns.items()}
    return {"features": count, **best}


def _compare_extraction(options: argparse.Namespace) -> dict:
    state, device = random_state(), options.device
    sys.modules["pytorch_fid.inception"].load_state_dict_from_url = lambda *_, **__: state
    theirs, ours = InceptionV3([3]).to(device), inception(device=device, allow_random_weights=True)
    size, clock = options.batch_size, time.process_time if device == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        files = _pictures(Path(folder), options.images)
        runs: dict[str, Callable[[], np.ndarray]] = {
            "ours": lambda: features_of_files(files, ours, batch_size=size).numpy(),
            "pytorch-fid": lambda: fid_score.get_activations(files, theirs, size, device=device, num_workers=0),
        }
        seconds, features = {side: [] for side in runs}, {}
        for _ in range(options.turns):
            for side, run in runs.items():
                start = clock()
                features[side] = run()
                seconds[side].append(clock() - start)
    apart = np.abs(features["ours"] - features["pytorch-fid"]).max() / np.abs(features["pytorch-fid"]).max()
    rates = {side: options.images / min(times) for side, times in seconds.items()}
    return {"images": options.images, "images_per_second": rates, "largest_relative_difference": float(apart)}


def _pictures(folder: Path, count: int) -> list[Path]:
    random = np.random.default_rng(0)
    files = [folder / f"{index:04d}.png" for index in range(count)]
    for file in files:
        coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(file)
    return files


def _print(results: dict) -> None:
    print(results["machine"])
    print("\n| features | pytorch-fid CPU s | ours CPU s | times faster | pytorch-fid MiB | ours MiB | difference |")
    print("|---|---|---|---|---|---|---|")
    for row in results["distances"]:
        theirs, ours = row["pytorch-fid"], row["ours"]
        print(
            f"| {row['features']} | {theirs['seconds']:.2f} | {ours['seconds']:.3f} | "
            f"{theirs['seconds'] / ours['seconds']:.0f} | {theirs['MiB']:.0f} | {ours['MiB']:.0f} | "
            f"{ours['value'] - theirs['value']:.1e} |"
        )
    rates = results["extraction"]["images_per_second"]
    print(
        f"\nextraction of {results['extraction']['images']} images: pytorch-fid {rates['pytorch-fid']:.1f}/s, "
        f"ours {rates['ours']:.1f}/s, {rates['ours'] / rates['pytorch-fid']:.2f} times faster; "
        f"features differ by {results['extraction']['largest_relative_difference']:.1e} of the largest"
    )


if __name__ == "__main__":
    main()
