"""One training step against CycleGAN as everybody writes it (reference.py), in turns in one run.

    python benchmarks/step.py --size 256 --batch 1 --json step.json
    python benchmarks/step.py --modes auto float32 bf16 compile --device cuda --batch 1 4 16 32

`auto` is what `speed: auto` chooses here. The JSON has a row for each size, batch and mode, and at its top what the
first of ours says; it is written anew with every row. `ratio` is ours over the reference, in images (pairs) a second:
the median over the turns of neighbours in time, so a busy machine slows both; `CPU ratio` is the same of processor
seconds, which neighbours disturb less. On a CPU the fastest step of a turn counts. On a GPU, where the program runs
ahead of what is computed, all of them do, with one wait at the end. Each turn runs in a process of its own, whose peak
memory is told above that of loading the code; one that fails, as for want of memory, leaves its reason in the table.
Ours keeps what memory it frees, as train.py does.
Work is counted as the reference's: 6 generator passes and 6 discriminator passes a pair, backward twice a forward.
`of the peak` is its share of what products of large matrices do on the same device, in the faster precision.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import about, machine, peak_memory
from reference import CycleGAN, discriminator, generator
from torch import nn

from cyclegan.algorithms import complete_config
from cyclegan.config import Config, load_config
from cyclegan.heap import keep_freed_memory
from cyclegan.training.auto import with_speed
from cyclegan.training.launch import new_accelerator
from cyclegan.training.trainer import Trainer

MODES: dict[str, dict[str, Any] | str] = {
    "reference": "plain",
    "auto": "auto",
    "float32": "plain",
    "float32 channels_last": {"channels_last": True},
    "float32 winograd": {"winograd": True},
    "float32 channels_last winograd": {"channels_last": True, "winograd": True},
    "bf16": {"precision": "bf16"},
    "bf16 channels_last": {"precision": "bf16", "channels_last": True},
    "tf32": {"tf32": True},
    "compile": {"precision": "bf16", "compile": True},
    "compile channels_last": {"precision": "bf16", "compile": True, "channels_last": True},
    "compile float32 channels_last": {"compile": True, "channels_last": True},
    "CUDA graphs": {"precision": "bf16", "compile": True, "channels_last": True, "compile_mode": "reduce-overhead"},
    "max-autotune": {"precision": "bf16", "compile": True, "channels_last": True, "compile_mode": "max-autotune"},
    "checkpointing": {"precision": "bf16", "channels_last": True, "checkpointing": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="pixels a side (%(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="pairs a step (%(default)s)")
    parser.add_argument("--modes", nargs="+", default=["auto"], choices=list(MODES)[1:])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, help="of a turn (on a CPU 3, on a GPU 20)")
    parser.add_argument("--warm", type=int, help="steps before them (on a CPU 1, on a GPU 10)")
    parser.add_argument("--turns", type=int, default=3, help="of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of a CPU (%(default)s)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # mode, size, batch: one turn
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    on_cpu = torch.device(options.device).type == "cpu"
    options.steps = options.steps or (3 if on_cpu else 20)
    options.warm = options.warm or (1 if on_cpu else 10)
    if options.one:
        mode, size, batch = options.one
        print(json.dumps(one(mode, int(size), int(batch), options)))
        return
    peaks, rows = matrix_peaks(torch.device(options.device)), []
    found = " and ".join(f"{peak:.3g} TFLOP/s in {precision}" for precision, peak in peaks.items())
    print(f"{machine(options.threads, options.device)}; products of matrices run at {found}")
    print(f"auto: {settings('auto', torch.device(options.device)).speed!r}")
    print("| size | batch | | ms a step | images/s | ratio | CPU ratio | peak MiB | TFLOP/s | of the peak |")
    print("|" + "---|" * 10, flush=True)
    for size in options.size:
        for batch in options.batch:
            for row in compare(size, batch, options):
                print(line(row, max(peaks.values())), flush=True)
                rows.append(row)
            if options.json:
                save(rows, peaks, options)


def save(rows: list[dict], peaks: dict[str, float], options: argparse.Namespace) -> None:
    ours = next((row for row in rows if row["mode"] != "reference" and "ratio" in row), {})
    measured = {f"{precision} matrix peak, TFLOP/s": peak for precision, peak in peaks.items()}
    results = {**about(options.threads, options.device), **measured, **ours, "rows": rows}
    options.json.write_text(json.dumps(results, indent=1) + "\n")


def line(row: dict, peak: float) -> str:
    """Of the table; adds the share of the peak to the row."""
    start = f"| {row['size']} | {row['batch']} | {row['mode']} | "
    if "failed" in row:
        return start + f"{row['failed']} |" + " |" * 6
    row["of the peak"] = row["TFLOP/s"] / peak
    ratios = " | ".join(f"{row[name]:.2f}" if name in row else "" for name in ("ratio", "CPU ratio"))
    return (
        f"{start}{row['ms']:.0f} | {row['images/s']:.3g} | {ratios} | {row['MiB']:.0f} | {row['TFLOP/s']:.3g} | "
        f"{row['of the peak']:.0%} |"
    )


def compare(size: int, batch: int, options: argparse.Namespace) -> list[dict]:
    turns: dict[str, list[dict]] = {mode: [] for mode in ["reference", *options.modes]}
    failed: dict[str, str] = {}
    for _ in range(options.turns):
        for mode in (mode for mode in turns if mode not in failed):
            try:
                turns[mode].append(in_a_process(mode, size, batch, options))
            except RuntimeError as error:
                failed[mode] = str(error)
    work, rows = 2e-12 * batch * pair_macs(size), []
    for mode, done in turns.items():
        row = {"size": size, "batch": batch, "mode": mode}
        if mode in failed:
            rows.append(row | {"failed": failed[mode]})
            continue
        seconds = median(turn["seconds"] for turn in done)
        row |= {"ms": 1000 * seconds, "images/s": batch / seconds, "TFLOP/s": work / seconds}
        row |= {"MiB": max(turn["MiB"] for turn in done)}
        if "reference" not in failed:
            pairs = list(zip(turns["reference"], done, strict=True))
            row["ratio"] = median(plain["seconds"] / ours["seconds"] for plain, ours in pairs)
            row["CPU ratio"] = median(plain["CPU seconds"] / ours["CPU seconds"] for plain, ours in pairs)
        rows.append(row)
    return rows


def in_a_process(mode: str, size: int, batch: int, options: argparse.Namespace) -> dict[str, float]:
    """One turn. Raises RuntimeError with the reason in a few words; all of it goes to stderr."""
    command = [sys.executable, __file__, "--one", mode, str(size), str(batch), "--device", options.device]
    command += ["--steps", str(options.steps), "--warm", str(options.warm), "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    print(done.stderr, file=sys.stderr)
    if done.returncode == -signal.SIGKILL or "out of memory" in done.stderr.lower():
        raise RuntimeError("out of memory")
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]  # a crash says nothing
    raise RuntimeError(said[-1][:80])


def one(mode: str, size: int, batch: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step, by the clock and of all processors, and MiB."""
    if mode != "reference":
        keep_freed_memory()  # as train.py does
    device = torch.device(options.device)
    torch.manual_seed(0)
    pictures = {domain: torch.rand(batch, 3, size, size, device=device) * 2 - 1 for domain in "AB"}
    before = peak_memory(device)
    if mode == "reference":
        torch.backends.cudnn.benchmark = True  # as the known ones; that cuDNN rounds to TF32 is PyTorch's default
        plain = CycleGAN(device)
        seconds, busy = of_a_step(lambda: plain.step(pictures["A"], pictures["B"]), device, options)
    else:
        config = settings(mode, device)
        with new_accelerator(config) as accelerator:
            trainer = Trainer(config, accelerator)
            seconds, busy = of_a_step(lambda: trainer.update(dict(pictures), 1.0), device, options)
    return {"seconds": seconds, "CPU seconds": busy, "MiB": peak_memory(device) - before}


def of_a_step(step: Callable, device: torch.device, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds by the clock and of all processors: of the fastest step on a CPU, of each in the mean on a GPU."""
    for _ in range(options.warm):
        step()
    synchronize(device)
    if device.type == "cpu":
        return tuple(map(min, zip(*(timed(step, device) for _ in range(options.steps)), strict=True)))
    whole = timed(lambda: [step() for _ in range(options.steps)], device)
    return whole[0] / options.steps, whole[1] / options.steps


def settings(mode: str, device: torch.device) -> Config:
    options = {"name": "step", "speed": MODES[mode], "logging": {"trackers": []}}
    return with_speed(complete_config(load_config(options)), device, "none")[0]


def timed(step: Callable, device: torch.device) -> tuple[float, float]:
    """Seconds by the clock and of all processors."""
    began, busy = time.perf_counter(), time.process_time()
    step()
    synchronize(device)
    return time.perf_counter() - began, time.process_time() - busy


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pair_macs(size: int) -> float:
    """Multiply-adds of a pair: each generator 3 times forwards, each discriminator 3 times, backwards twice as much."""
    return 6 * macs(generator(), size) * 3 + 6 * macs(discriminator(), size) * 3


def macs(network: nn.Module, size: int) -> float:
    total = 0.0

    def count(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += layer.weight.numel() * places[0, 0].numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    with torch.device("meta"), torch.no_grad():
        network.to("meta")(torch.empty(1, 3, size, size))
    return total


def matrix_peaks(device: torch.device) -> dict[str, float]:
    """TFLOP/s of products of large matrices: in bf16, and in float32 on a CPU, which may have no units for bf16."""
    if device.type == "cuda":
        return {"bf16": matrix_peak(device, torch.bfloat16, 8192)}
    return {"bf16": matrix_peak(device, torch.bfloat16, 2048), "float32": matrix_peak(device, torch.float32, 2048)}


def matrix_peak(device: torch.device, precision: torch.dtype, side: int) -> float:
    """TFLOP/s of a product, the best of several."""
    a, b = torch.randn(2, side, side, device=device, dtype=precision)
    times: list[tuple[float, float]] = []
    while len(times) < 10 and sum(seconds for seconds, _ in times) < 10:  # emulated, one may take a minute
        times.append(timed(lambda: a @ b, device))
    return 2e-12 * side**3 / min(times)[0]


if __name__ == "__main__":
    main()
