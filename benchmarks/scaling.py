"""The same run on 1 ... N processes: `python benchmarks/scaling.py [--processes 1 2 4] [--speed]`.

Trains with SGD in double precision and the same global batch, prints images/s, how far the weights are apart, and
draws the loss curves over each other (benchmarks/scaling.png). With --speed, images/s with Adam at the configured
precision instead: each process then keeps its own batch, so N processes should do N times the pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from machine import about
from safetensors.torch import load_file

from cyclegan.training.journal import read_metrics

HERE = Path(__file__).parent
SET = HERE.parent / "datasets" / "flat2fluent3d"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    most = torch.cuda.device_count() or 4  # of GPUs, a process has one
    parser.add_argument("--processes", type=int, nargs="+", default=[n for n in (1, 2, 4, 8) if n <= most])
    parser.add_argument("--updates", type=int, default=50, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=32, help="pixels a side (%(default)s)")
    parser.add_argument("--width", type=int, default=8, help="of the networks (%(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="--speed: pairs a process (%(default)s)")
    parser.add_argument("--precision", default="no", help="--speed: no, bf16 or fp16 (%(default)s)")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    if not options.speed and any(max(options.processes) % n for n in options.processes):
        parser.error("--processes: the largest must be a multiple of each, for a global batch that all can share")
    with tempfile.TemporaryDirectory() as folder:
        runs = {n: train(n, options, Path(folder)) for n in options.processes}
        rows = [row(n, runs, options) for n in runs]
        if not options.speed:
            draw({n: read_metrics(run / "log" / "metrics.jsonl") for n, run in runs.items()}, HERE / "scaling.png")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = about(max(1, (os.cpu_count() or 1) // max(options.processes)), device)
    print(f"{where['machine']}, {torch.cuda.device_count()} GPUs")
    for line in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in line.items()))
    name = "scaling-speed.json" if options.speed else "scaling.json"
    (HERE / name).write_text(json.dumps({**where, "arguments": vars(options), "rows": rows}, indent=1))


def train(processes: int, options: argparse.Namespace, folder: Path) -> Path:
    most = max(options.processes)
    batch = options.batch if options.speed else most // processes
    every = max(1, options.updates // 20) if options.speed else 1  # a line of curves waits for the GPU
    config: dict[str, Any] = {
        "name": f"on{processes}",
        "results": str(folder),
        "data": {"root": str(SET), "load_size": options.size, "crop_size": options.size, "workers": 1},
        "generator": {"name": "resnet", "width": options.width, "blocks": 2},
        "discriminator": {"name": "patch", "width": options.width, "layers": 2},
        "training": {"epochs": 25, "decay_epochs": 25, "batch_size": batch, "max_steps": options.updates},
        "logging": {"log_every": batch * processes * every, "samples": 0, "trackers": []},
    }
    if options.speed:
        config["speed"] = {"precision": options.precision}
    else:  # a pool that never fills: each process has its own
        config["data"]["epoch_size"] = most
        config["optimizer"] = {"name": "sgd", "lr": 1e-4}
        config["speed"] = {"precision": "fp64"}
        config["algorithm"] = {"pool": 10**6}
    path = folder / f"on{processes}.yaml"
    path.write_text(yaml.safe_dump(config))
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    )
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    command = [sys.executable, *launch, str(HERE.parent / "train.py"), "--config", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return folder / f"on{processes}"


def row(processes: int, runs: dict[int, Path], options: argparse.Namespace) -> dict[str, float]:
    lines = read_metrics(runs[processes] / "log" / "metrics.jsonl")
    speed = median(line["speed/images_per_second"] for line in lines[len(lines) // 4 :])
    if options.speed:
        return {"processes": processes, "pairs/s": speed}
    first, own = (checksum(runs[n]) for n in (options.processes[0], processes))
    rates = [[x["lr/generators"] for x in read_metrics(runs[n] / "log" / "metrics.jsonl")] for n in runs]
    furthest = max((first[name] - own[name]).abs().max().item() for name in first)
    return {
        "processes": processes,
        "pairs/s": speed,
        "sum of |weights|": sum(value.abs().sum().item() for value in own.values()),
        "furthest weight apart": furthest,
        "same learning rates": float(all(rate == rates[0] for rate in rates)),
    }


def checksum(run: Path) -> dict[str, torch.Tensor]:
    return {f"{d}.{k}": v.double() for d in ("AtoB", "BtoA") for k, v in load_file(run / f"{d}.safetensors").items()}


def draw(curves: dict[int, list[dict]], path: Path) -> None:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(8, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("generators", "discriminators"), strict=True):
        for (processes, lines), width in zip(curves.items(), (7, 4, 1.5, 1), strict=False):
            values = [line[name] for line in lines]
            axes.plot(range(1, len(values) + 1), values, linewidth=width, label=processes, alpha=0.8)
        axes.set(title=f"loss of the {name}", xlabel="update")
        axes.legend(title="processes")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
