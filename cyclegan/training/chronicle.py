"""What can be seen of a run while it goes on: curves, sample sheets, and the doctor's remarks on both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from torch import nn
from tqdm import tqdm

from cyclegan.config import Config
from cyclegan.evaluation.card import save_card
from cyclegan.training.doctor import new_doctor
from cyclegan.training.environment import describe_environment
from cyclegan.training.journal import Journal, tell
from cyclegan.training.remarks import Remark, add_remarks, drop_remarks_after
from cyclegan.training.samples import drop_after, sample_images, sample_sheet, save_atomically, translate_samples
from cyclegan.whole_files import write_whole


class Chronicle:
    """Writes log/ and samples/ of a run; the main process's only, though all processes call it.

    Args:
        config: the run
        accelerator: for its trackers
    """

    def __init__(self, config: Config, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        self.log = config.folder / "log"
        self.remarks, self.cards = self.log / "remarks.jsonl", self.log / "cards"
        self.doctor, self.fresh = new_doctor(config), []
        self.sheet_at, self.warned = -1, False
        wanted = config.logging.samples and accelerator.is_main_process
        self.samples = sample_images(config) if wanted else {}

    def open(self, images: int) -> None:
        """Begin, or go on after `images`: later lines and sheets of an interrupted session are dropped."""
        tensorboard = TensorBoardTracker("", self.accelerator.logging_dir, purge_step=images + 1)  # log/ is the run's
        self.accelerator.log_with = [
            tensorboard if isinstance(kind, TensorBoardTracker) or str(kind) == tensorboard.name else kind
            for kind in self.accelerator.log_with
        ]
        self.accelerator.init_trackers(self.config.name)
        self.journal = Journal(self.log, self.accelerator, images)
        if self.accelerator.is_main_process:
            environment = json.dumps(describe_environment(self.accelerator), indent=1)
            write_whole(self.log / "environment.json", environment)
            drop_remarks_after(self.remarks, images)
            drop_after((self.config.folder / "samples").glob("*.png"), images)
            drop_after(self.cards.glob("*.json"), images)

    def add_curves(self, images: int, epochs: float, steps: int, values: dict[str, float], waited: float) -> None:
        line = self.journal.timed(images, values, waited)
        with self.spared():
            self.journal.add(images, {"epoch": int(epochs), "step": steps, **line})
        self._remark(self.doctor.read(images, steps, {"epoch": epochs, **line}))

    def add_scores(self, images: int, scores: dict[str, float], cards: dict[str, dict]) -> None:
        with self.spared():
            self.journal.add(images, scores)
            if self.accelerator.is_main_process:
                self.cards.mkdir(parents=True, exist_ok=True)
                for direction, card in cards.items():
                    save_card(self.cards / f"{images:09d}_{direction}.json", card)

    def add_sheet(self, images: int, steps: int, generators: dict[str, nn.Module], dtype: torch.dtype) -> None:
        if not self.samples or images == self.sheet_at:
            return
        self.sheet_at = images
        with self.accelerator.autocast(), evaluating(generators):
            samples = {domain: value.to(self.accelerator.device, dtype) for domain, value in self.samples.items()}
            pictures = translate_samples(generators, samples)
            sheet = sample_sheet(generators, pictures, samples)
        with self.spared():
            save_atomically(sheet, self.config.folder / "samples" / f"{images:09d}.png")
        self._tell_tensorboard(lambda writer: writer.add_image("samples", np.asarray(sheet), images, dataformats="HWC"))
        self._remark(self.doctor.look(images, steps, pictures))

    @contextmanager
    def spared(self) -> Iterator[None]:
        """A full disk costs a line or a picture, not the run; said once, until something could be written again."""
        try:
            yield
            self.warned = False
        except OSError as error:
            if not self.warned:
                tqdm.write(f"warning: {self.config.folder}: a line or picture was not written ({error}); going on")
            self.warned = True

    def _remark(self, remarks: list[Remark]) -> None:
        if not (remarks and self.accelerator.is_main_process):
            return
        self.fresh += remarks
        with self.spared():
            add_remarks(self.remarks, remarks)
        for remark in remarks:
            tqdm.write(f"doctor: {remark.message}")
            self._tell_tensorboard(lambda writer, said=remark: writer.add_text("doctor", said.message, said.images))

    def take_remarks(self) -> list[Remark]:
        """Those made since the last call, by the main process."""
        taken, self.fresh = self.fresh, []
        return taken

    def _tell_tensorboard(self, say: Callable[[Any], None]) -> None:
        """Say something to its writer."""
        tell(self.accelerator, lambda tracker: say(tracker.writer) if tracker.name == "tensorboard" else None)


@contextmanager
def evaluating(networks: dict[str, nn.Module]) -> Iterator[None]:
    """Dropout off, batch norm with its statistics, no trial of cuDNN's ways for each size; afterwards as before."""
    before = {name: network.training for name, network in networks.items()}
    trial, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    for network in networks.values():
        network.eval()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = trial
        for name, network in networks.items():
            network.train(before[name])
