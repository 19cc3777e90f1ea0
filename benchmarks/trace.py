"""Where the time of a training step goes: its operators by the time that they take themselves, from torch.profiler.

    python benchmarks/trace.py --size 256 --mode auto --chrome trace.json
    python benchmarks/trace.py --size 256 --mode "compile channels_last" --device cuda --batch 1

On a GPU the table is of its kernels, and `busy` is the share of the step in which one was running; what is missing
to 100% is time that the GPU waited for the program. `--chrome` writes the trace for chrome://tracing or Perfetto.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from machine import machine
from step import MODES, settings, synchronize
from torch.profiler import ProfilerActivity, profile

from cyclegan.heap import keep_freed_memory
from cyclegan.training.launch import new_accelerator
from cyclegan.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="pixels a side (%(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="pairs a step (%(default)s)")
    parser.add_argument("--mode", default="auto", choices=list(MODES)[1:])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=3, help="that are traced, after some to warm up (%(default)s)")
    parser.add_argument("--rows", type=int, default=15, help="of the table (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of a CPU (%(default)s)")
    parser.add_argument("--chrome", type=Path, help="where the whole trace goes, JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = torch.device(options.device)
    gpu = device.type == "cuda"
    pictures = {
        domain: torch.rand(options.batch, 3, options.size, options.size, device=device) * 2 - 1 for domain in "AB"
    }
    config = settings(options.mode, device)
    with new_accelerator(config) as accelerator:
        trainer = Trainer(config, accelerator)
        for _ in range(10 if gpu else 3):
            trainer.update(dict(pictures), 1.0)
        synchronize(device)
        with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]) as traced:
            began = time.perf_counter()
            for _ in range(options.steps):
                trainer.update(dict(pictures), 1.0)
            synchronize(device)
            took = time.perf_counter() - began
    if options.chrome:
        traced.export_chrome_trace(str(options.chrome))
    times = own_times(traced, gpu)
    whole = sum(ms for ms, _ in times.values())
    print(f"{machine(options.threads, options.device)}; {options.mode}: {config.speed!r}")
    print(f"{1000 * took / options.steps:.1f} ms a step, traced; busy {whole / 1000 / took:.0%}")
    print("| operator | calls a step | ms a step | share |")
    print("|" + "---|" * 4)
    for name, (ms, calls) in sorted(times.items(), key=lambda item: -item[1][0])[: options.rows]:
        print(f"| {name[:80]} | {calls / options.steps:.0f} | {ms / options.steps:.2f} | {ms / whole:.1%} |")


def own_times(traced: profile, gpu: bool) -> dict[str, tuple[float, int]]:
    """Milliseconds that each operator (on a GPU: kernel) took itself, and its calls.

    On a GPU, what has a name in the program, as optimizers' steps have, is there once more over its kernels.
    """
    kind = torch.autograd.DeviceType.CUDA if gpu else torch.autograd.DeviceType.CPU
    return {
        event.key: ((event.self_device_time_total if gpu else event.self_cpu_time_total) / 1000, event.count)
        for event in traced.key_averages()
        if event.device_type == kind and not (gpu and event.is_user_annotation)
    }


if __name__ == "__main__":
    main()
