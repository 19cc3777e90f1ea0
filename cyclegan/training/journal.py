"""Curves: means of the losses since the last line, to log/metrics.jsonl and to Accelerate's trackers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import Tensor
from tqdm import tqdm

from cyclegan.errors import reason_of
from cyclegan.whole_files import write_whole


class Means:
    """Running means of losses, kept on the device: nothing waits for the GPU until they are asked for."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over all processes; starts afresh. Every process has to call it."""
        if not self.sums:
            return {}
        means = torch.stack([self.sums[name] / self.counts[name] for name in self.sums])
        names = list(self.sums)
        self.sums, self.counts = {}, {}
        return dict(zip(names, accelerator.reduce(means, reduction="mean").tolist(), strict=True))

    def state_dict(self) -> dict:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict, device: torch.device) -> None:
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])


class Journal:
    """Writes lines of curves; the main process's only. A resumed run drops the lines after the state it resumes.

    Args:
        folder: of metrics.jsonl and the trackers' files
        accelerator: for its trackers
        start: images seen so far
    """

    def __init__(self, folder: Path, accelerator: Accelerator, start: int):
        self.path, self.accelerator = folder / "metrics.jsonl", accelerator
        self.began, self.images = time.monotonic(), start
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in _lines(self.path) if _images(line) <= start] if self.path.exists() else []
            write_whole(self.path, "".join(line + "\n" for line in kept))

    def timed(self, images: int, values: dict[str, float], waited: float) -> dict[str, float]:
        """The values of a line, and what the time since the last one went into; of it, `waited` seconds for data."""
        now = time.monotonic()
        seconds = max(now - self.began, 1e-9)
        values = {
            **values,
            "speed/images_per_second": (images - self.images) / seconds,
            "speed/waiting_for_data": waited / seconds,
            "speed/memory_mib": _memory(self.accelerator.device) / 2**20,
        }
        self.began, self.images = now, images
        return values

    def add(self, images: int, values: dict[str, float]) -> None:
        """Raises OSError where the line could not be written; the trackers have theirs."""
        if self.accelerator.is_main_process:
            tell(self.accelerator, lambda tracker: tracker.log(values, step=images))
            with self.path.open("a") as file:
                file.write(json.dumps({"images": images, **values}) + "\n")


def tell(accelerator: Accelerator, say: Callable[[GeneralTracker], None]) -> None:
    """Say something to every tracker; one that fails (a full disk, no network) is let go, and the run goes on."""
    for tracker in list(accelerator.trackers):
        try:
            say(tracker)
        except Exception as error:  # each has its own
            accelerator.trackers.remove(tracker)
            tqdm.write(f"warning: {tracker.name} gets no more curves ({reason_of(error)}); log/metrics.jsonl goes on")


def end_trackers(accelerator: Accelerator) -> None:
    tell(accelerator, lambda tracker: tracker.finish())
    accelerator.trackers.clear()


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl; one that a crash cut short or spoiled is left out."""
    return [json.loads(line) for line in _lines(path) if _images(line) < float("inf")]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _images(line: str) -> float:
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _memory(device: torch.device) -> int:
    """Peak bytes on the GPU, or bytes that the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
