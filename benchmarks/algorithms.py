"""Algorithms side by side: the same networks, pictures and minutes for each, scored on the same test pairs.

    python benchmarks/algorithms.py --minutes 20 --out results/algorithms
    python benchmarks/algorithms.py --cost --out results/algorithms

The first trains one after the other (or --jobs at a time) with the networks of options/flat2fluent3d.yaml and a
constant learning rate, and writes scores.md, scores.json and sheet.png. Every second test pair is for scoring.
pix2pix, which needs pairs, learns from the rest of them (or, with --pairs, from the training pictures where those are
pairs). KID is to the training pictures of B, on EfficientNet-Lite0's features, and not to be compared with Inception's.
The second measures an iteration of the shipped options at 256x256, batch 1, in turns, and writes cost.md and cost.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from machine import about, peak_memory
from PIL import Image
from torch import Tensor

from cyclegan.algorithms import complete_config
from cyclegan.config import load_config
from cyclegan.data.folders import subject
from cyclegan.data.images import find_images, read_image, to_tensor
from cyclegan.evaluation.evaluator import evaluate, side_of
from cyclegan.evaluation.extractors import make_extractor
from cyclegan.evaluation.perceptual import lpips_from
from cyclegan.evaluation.split import translate_split
from cyclegan.training.journal import read_metrics
from cyclegan.training.launch import new_accelerator
from cyclegan.training.loop import train
from cyclegan.training.samples import draw_sheet
from cyclegan.training.trainer import Trainer

METHODS = {
    "cyclegan": {"name": "cyclegan", "cycle": 1, "identity": 0.5},
    "cut": {"name": "cut"},
    "fastcut": {"name": "cut", "nce": 10, "identity": 0, "flip": True},
    "dclgan": {"name": "dclgan"},
    "pix2pix": {"name": "pix2pix"},
}
SHIPPED = {"cyclegan": "horse2zebra", "cut": "cut", "fastcut": "fastcut", "dclgan": "dclgan"}
PUBLISHED = {"cyclegan": (0.40, 4.81), "cut": (0.24, 3.33), "fastcut": (0.15, 2.25), "dclgan": (0.41, None)}
ROWS = 10  # of the sheet
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=["cyclegan", "cut", "fastcut", "pix2pix"], choices=METHODS)
    parser.add_argument("--minutes", type=float, default=20, help="of training for each (%(default)s)")
    parser.add_argument("--data", type=Path, default=Path("datasets/flat2fluent3d"), help="testA and testB are pairs")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time, each with its share of the cores")
    parser.add_argument("--pairs", action="store_true", help="so are trainA and trainB: for pix2pix")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/algorithms"))
    parser.add_argument("--lpips-weights", type=Path, help="torchvision's AlexNet; without it there is no LPIPS")
    parser.add_argument("--cost", action="store_true", help="measure iterations instead")
    parser.add_argument("--same-networks", action="store_true", help="--cost: CycleGAN's networks for all")
    parser.add_argument("--size", type=int, default=256, help="--cost: side of the pictures")
    parser.add_argument("--iterations", type=int, default=3, help="--cost: in a turn, after one to warm up")
    parser.add_argument("--turns", type=int, default=3, help="--cost: of each method; the best counts")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="laid over every run's options")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # one run or turn, with a peak of its own
    options = parser.parse_intermixed_args()
    if options.child:
        kind, path = options.child
        print(json.dumps({"train": _train_here, "cost": _cost_here}[kind](load_config(path), options)))
    elif options.cost:
        _cost(options)
    else:
        _scores(options)


# ---- scores after the same time


def _scores(options: argparse.Namespace) -> None:
    data, pairs = _share_out(options)
    extractor = make_extractor("effnet-lite0")
    reference = side_of(data / "trainB", extractor, ["kid"])  # more than the test pictures: a KID of few wavers
    lpips = lpips_from(options.lpips_weights) if options.lpips_weights else None
    results = {**_about(options.jobs), "minutes": options.minutes, "seed": options.seed, "methods": {}}
    configs = {}
    for name in options.methods:
        base = load_config("flat2fluent3d").model_dump(mode="json")
        base["speed"] = {"precision": "bf16"}  # not auto, which chooses nothing once all is written out
        base |= {"name": name, "results": str(options.out), "seed": options.seed, "algorithm": METHODS[name]}
        base["data"] |= {"root": str(data), "pairing": "paired" if name == "pix2pix" else "random"}
        if name == "pix2pix":
            for domain in ("A", "B"):
                base["data"][domain] |= {"train": str(pairs / f"train{domain}"), "test": str(data / f"test{domain}")}
        base["schedule"] |= {"name": "constant"}
        base["training"] |= {"epochs": 10**6, "decay_epochs": 0, "max_time": options.minutes}
        configs[name] = base
    with ThreadPoolExecutor(options.jobs) as pool:
        done = dict(
            zip(configs, pool.map(lambda base: _in_a_child("train", base, options), configs.values()), strict=True)
        )
    for name, found in done.items():
        run = options.out / name
        scored = translate_split(run, direction="AtoB", paired=True)["AtoB"]["scores"]
        scored["KID"] = {
            kind: evaluate(folder, reference, extractor, ["kid"]).numbers["kid_effnet-lite0"]
            for kind, folder in (("untouched", data / "testA"), ("translated", run / "test" / "AtoB"))
        }
        if lpips:
            scored["LPIPS"] = _lpips(lpips, data, run)
        speeds = [line["speed/images_per_second"] for line in read_metrics(run / "log" / "metrics.jsonl")]
        results["methods"][name] = {**found, "images_per_second": statistics.median(speeds), "scores": scored}
        _write(options.out / "scores", results, _score_table(results))
    _sheet(options, data).save(options.out / "sheet.png")


def _share_out(options: argparse.Namespace) -> tuple[Path, Path]:
    """Folders of links: the data set with every second test pair, and the pairs that pix2pix may learn from."""
    data, pairs = options.out / "data", options.out / "pairs"
    for domain in ("A", "B"):
        train_files, test_files = (find_images(options.data / f"{split}{domain}") for split in ("train", "test"))
        _link(train_files, data / f"train{domain}")
        _link(test_files[1::2], data / f"test{domain}")
        _link(train_files if options.pairs else test_files[::2], pairs / f"train{domain}")
    return data, pairs


def _link(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.resolve())


def _train_here(config, options: argparse.Namespace) -> dict:
    began = time.monotonic()
    try:
        train(config, resume="none")
    except SystemExit as stop:
        if stop.code:
            raise
    state = json.loads(max((config.folder / "state").glob("*/manifest.json")).read_text())
    return {"images": state["images"], "seconds": time.monotonic() - began, "megabytes": peak_memory(DEVICE)}


def _lpips(distance, data: Path, run: Path) -> dict[str, float]:
    totals = {"untouched": 0.0, "translated": 0.0}
    truths, sides = _named(data / "testB"), {"untouched": data / "testA", "translated": run / "test" / "AtoB"}
    for kind, folder in sides.items():
        for name, path in _named(folder).items():
            totals[kind] += float(distance(_read(path)[None], _read(truths[name])[None])) / len(truths)
    return totals


def _sheet(options: argparse.Namespace, data: Path) -> Image.Image:
    names = list(_named(data / "testA"))
    names = names[:: max(1, len(names) // ROWS)][:ROWS]
    folders = {"input": data / "testA"}
    folders |= {name: options.out / name / "test" / "AtoB" for name in options.methods}
    folders["truth"] = data / "testB"
    columns = {title: _named(folder) for title, folder in folders.items()}
    return draw_sheet([(title, torch.stack([_read(of[name]) for name in names])) for title, of in columns.items()])


def _named(folder: Path) -> dict[str, Path]:
    """Pictures by what is the same on both sides of a pair and in the translation: 1 for 1_A.jpg, 1_B.jpg, 1_A.png."""
    return {subject(path, folder): path for path in find_images(folder)}


def _read(path: Path) -> Tensor:
    return to_tensor(read_image(path))


def _score_table(results: dict) -> list[str]:
    """Of the scores that all methods have: only those with a way back have a cycle's error."""
    first, *others = [found["scores"] for found in results["methods"].values()]
    metrics = [name for name in first if all(name in scores for scores in others)]
    lines = [f"| {' | '.join(['', *metrics, 'images/s', 'images', 'peak MB'])} |", "|---" * (len(metrics) + 4) + "|"]
    lines.append(f"| untouched | {' | '.join(format(first[name]['untouched'], '.4g') for name in metrics)} | | | |")
    for name, found in results["methods"].items():
        scores = " | ".join(f"{found['scores'][metric]['translated']:.4g}" for metric in metrics)
        lines.append(
            f"| {name} | {scores} | {found['images_per_second']:.1f} | {found['images']} | {found['megabytes']:.0f} |"
        )
    return [f"{results['machine']}; {results['minutes']:g} minutes each, seed {results['seed']}", "", *lines]


# ---- cost of an iteration


def _cost(options: argparse.Namespace) -> None:
    methods = [name for name in options.methods if name in SHIPPED]
    turns: dict[str, list[dict]] = {name: [] for name in methods}
    for _ in range(options.turns):
        for name in methods:
            config = load_config(SHIPPED[name]).model_dump(mode="json")
            if options.same_networks:
                config |= load_config(SHIPPED["cyclegan"]).model_dump(include={"generator", "discriminator"})
            turns[name].append(_in_a_child("cost", {**config, "results": str(options.out)}, options))
    best = {
        name: {key: min(turn[key] for turn in done) for key in ("seconds", "megabytes")} for name, done in turns.items()
    }
    results = {**_about(), "size": options.size, "same_networks": options.same_networks, "methods": best}
    lines = ["| | s / iteration | relative | published | peak MB | relative | published |", "|---" * 7 + "|"]
    first = methods[0]
    for name, found in best.items():
        seconds, memory = PUBLISHED[name]
        lines.append(
            f"| {name} | {found['seconds']:.3f} | {found['seconds'] / best[first]['seconds']:.2f} | {seconds} s, "
            f"{seconds / PUBLISHED[first][0]:.2f} | {found['megabytes']:.0f} | "
            f"{found['megabytes'] / best[first]['megabytes']:.2f} | "
            + (f"{memory} GB, {memory / PUBLISHED[first][1]:.2f} |" if memory and PUBLISHED[first][1] else "|")
        )
    kind = "CPU seconds of all threads" if not torch.cuda.is_available() else "seconds"
    _write(
        options.out / "cost",
        results,
        [f"{results['machine']}; {kind}, {options.size}x{options.size}, batch 1", "", *lines],
    )


def _cost_here(config, options: argparse.Namespace) -> dict:
    """Seconds an iteration, and what the peak memory is above that of an empty process."""
    cuda = torch.cuda.is_available()
    config = complete_config(config)
    with new_accelerator(config) as accelerator:
        before = 0.0 if cuda else peak_memory(DEVICE)
        trainer = Trainer(config, accelerator)
        batch = {domain: torch.rand(1, 3, options.size, options.size) * 2 - 1 for domain in ("A", "B")}
        batch = {domain: image.to(accelerator.device) for domain, image in batch.items()}
        clock = time.perf_counter if cuda else time.process_time  # on a busy machine a wall clock times the neighbours
        seconds = []
        for _ in range(1 + options.iterations):
            began = clock()
            trainer.update(dict(batch), 1.0)
            if cuda:
                torch.cuda.synchronize()
            seconds.append(clock() - began)
        return {"seconds": min(seconds[1:]), "megabytes": peak_memory(DEVICE) - before}


# ---- both


def _about(jobs: int = 1) -> dict[str, Any]:
    where = about(os.cpu_count() // jobs, DEVICE)
    return {**where, "jobs at a time": jobs} if jobs > 1 else where


def _in_a_child(kind: str, config: dict, options: argparse.Namespace) -> dict:
    path = options.out / f"{config['name']}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(load_config(config, options.overrides).to_yaml())
    sizes = ["--size", str(options.size), "--iterations", str(options.iterations)]
    command = [sys.executable, __file__, *sizes, "--child", kind, str(path)]
    print(f"{config['name']} ...", file=sys.stderr, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, os.cpu_count() // options.jobs))}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1])


def _write(path: Path, results: dict, lines: list[str]) -> None:
    path.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
