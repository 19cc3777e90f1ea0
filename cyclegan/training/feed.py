"""The way of a run's pictures from their folders to its device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain

from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from cyclegan.algorithms import check_pictures
from cyclegan.config import Config, ConfigError
from cyclegan.data.dataset import EpochBatches, UnpairedDataset, epoch_length, new_loader
from cyclegan.data.delivery import new_delivery
from cyclegan.data.folders import find_folder, find_split
from cyclegan.data.images import ImageError
from cyclegan.data.paired import PairedDataset
from cyclegan.errors import UserError
from cyclegan.evaluation.ranks import on_first_rank
from cyclegan.training.stop import ignore_ends_of_workers
from cyclegan.training.trainer import Trainer


class WorkerLost(UserError, RuntimeError):
    """A process that reads pictures died."""


class Feed:
    """One process's batches, {"A": x, "B": y} in [-1, 1].

    Args:
        config: the run
        accelerator: its device and processes
        trainer: whose algorithm and generators say what the pictures must be like
        seed: of order, crops and augmentation
    """

    def __init__(self, config: Config, accelerator: Accelerator, trainer: Trainer, seed: int):
        self.config, training, data = config, config.training, config.data
        self.skipped: set[str] = set()
        self.files = find_split(data, "train")
        pairs = epoch_length(self.files, data.epoch_size)
        rank, world = accelerator.process_index, accelerator.num_processes
        self.batches = EpochBatches(pairs, training.batch_size, rank, world, training.batches_per_epoch)
        self.global_batch = training.batch_size * world
        self.epoch_images = len(self.batches) * self.global_batch
        on_first_rank(lambda: check_pictures(config, trainer.algorithm, chain(*self.files.values())))
        kind = PairedDataset if data.pairing == "paired" else UnpairedDataset
        multiple = max(generator.multiple for generator in trainer.generators.values())
        dataset = kind(self.files, data, seed, multiple)
        self.loader = new_loader(dataset, self.batches, data.workers, pin_memory=accelerator.device.type == "cuda")
        self.deliver, self.waited = new_delivery(accelerator.device, trainer.layout), 0.0

    def sizes(self) -> str:
        """How many pictures there are, and where."""
        return ", ".join(
            f"{len(paths)} {domain} in {find_folder(self.config.data, 'train', domain)}"
            for domain, paths in self.files.items()
        )

    def rest(self, epoch: int, place: int) -> Iterator[dict[str, Tensor]]:
        """The epoch's batches after `place` pairs of all processes, on the device. Raises WorkerLost."""
        self.batches.epoch, self.batches.start = epoch, place // self.global_batch
        batches = None
        while True:
            asked = time.monotonic()
            try:
                if batches is None:
                    batches = iter(self.loader)
                    ignore_ends_of_workers()
                batch = next(batches, None)
            except (RuntimeError, ConnectionError, EOFError) as error:  # it died, or died as it handed one over
                if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
                    raise
                raise WorkerLost(
                    "a loader worker died, often for want of memory; --resume auto goes on from the newest state "
                    "(fewer data.workers need less)"
                ) from None
            self.waited += time.monotonic() - asked
            if batch is None:
                return
            if problem := batch.pop("problem"):
                raise ConfigError(problem)
            self._note_skipped(batch.pop("skipped"))
            yield self.deliver(batch)

    def take_waited(self) -> float:
        """Seconds that training has waited for batches since the last call."""
        waited, self.waited = self.waited, 0.0
        return waited

    def _note_skipped(self, messages: list[str]) -> None:
        if messages and self.config.data.corrupt == "fail":
            raise ImageError(f"{messages[0]} (data.corrupt=skip goes on without such pictures)")
        for message in set(messages) - self.skipped:
            self.skipped.add(message)
            tqdm.write(f"warning: skipped ({len(self.skipped)} files so far by this process): {message}")
