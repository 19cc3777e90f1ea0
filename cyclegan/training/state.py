"""What a training state keeps of a run: with it back, the run goes on as if it had never stopped.

checkpoint.py writes it to the disk and finds it there again; here is what goes in, and what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from cyclegan.config import Config
from cyclegan.errors import reason_of
from cyclegan.training import checkpoint
from cyclegan.training.doctor import Doctor
from cyclegan.training.journal import Means
from cyclegan.training.schedules import LearningRate
from cyclegan.training.scoring import was_scored
from cyclegan.training.trainer import Trainer, seed_everything


@dataclass
class Progress:
    """Where a run is. `images` counts pairs over all processes; `place` those of the current epoch."""

    epoch: int = 0
    place: int = 0
    images: int = 0

    def epochs(self, epoch_images: int) -> float:
        """Epochs done, with the part of the current one. Earlier ones may have been longer: `images` does not tell."""
        return self.epoch + self.place / epoch_images


class RunState:
    """Everything about a run that changes while it trains.

    Args:
        config: the run
        accelerator: its processes
        trainer: networks, optimizers, averages and what each process has of its own
        rate: of learning
        doctor: reads the curves
        rollbacks: how often the run has gone back to an earlier state
    """

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        trainer: Trainer,
        rate: LearningRate,
        doctor: Doctor,
        rollbacks: int = 0,
    ):
        self.config, self.accelerator, self.rollbacks = config, accelerator, rollbacks
        self.trainer, self.rate, self.doctor = trainer, rate, doctor
        self.progress, self.epoch_means, self.score_due = Progress(), Means(), False

    def write(self, states: Path) -> None:
        """Into a folder of its own among `states`; every process calls this. Raises OSError, see `write_state`."""
        shared = {
            "trainer": self.trainer.shared_state(),
            "rate": self.rate.state_dict(),
            "doctor": self.doctor.state_dict(),
            "score_due": self.score_due,
            "rollbacks": self.rollbacks,
        }
        own = {**self.trainer.own_state(), "epoch_means": self.epoch_means.state_dict()}
        about = {"progress": asdict(self.progress), "config": self.config.model_dump(mode="json")}
        checkpoint.write_state(states, self.progress.images, shared, own, about, self.accelerator)

    def restore(self, folder: Path, say: Callable[[str], None]) -> None:
        """From the folder of an intact state; says what has changed and what could not be kept.

        Raises CheckpointError where the state is of other networks or of another optimizer.
        """
        manifest = checkpoint.read_manifest(folder)
        changed = checkpoint.changes(manifest["config"], self.config.model_dump(mode="json"))
        shared, owns = checkpoint.read_state(folder)
        self._restore_networks(shared["trainer"], folder, changed)
        self.rate.load_state_dict(shared["rate"])
        self.doctor.load_state_dict(shared["doctor"])
        self.score_due = shared["score_due"] and not was_scored(folder)
        self.progress = Progress(**manifest["progress"])
        say(f"resumed from {folder}: {self.progress.images} images, whole epochs: {self.progress.epoch}")
        for line in changed:
            say(f"  changed since it was saved: {line}")
        self._restore_own(owns, say)
        if shared.get("rollbacks", 0) != self.rollbacks:
            seed_everything(self.trainer.config.seed + self.progress.images + self.accelerator.process_index)

    def _restore_networks(self, saved: dict[str, Any], folder: Path, changed: list[str]) -> None:
        if other := [line for line in changed if line.startswith("optimizer.name:")]:
            raise checkpoint.CheckpointError(f"{folder} does not fit this run: {other[0]}. --resume none starts afresh")
        try:
            self.trainer.load_shared_state(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            parts = ("algorithm", "generator", "discriminator")
            network = [line for line in changed if line.split(".")[0] in parts or ".channels:" in line]
            raise checkpoint.CheckpointError(
                f"{folder} does not fit this run: {'; '.join(network) or reason_of(error)}. "
                "Give the run another name, or --resume none to start afresh"
            ) from None

    def _restore_own(self, owns: list[dict[str, Any]], say: Callable[[str], None]) -> None:
        if self.trainer.load_own_states(owns, self.progress.images):
            means = owns[self.accelerator.process_index]["epoch_means"]
            self.epoch_means.load_state_dict(means, self.accelerator.device)
        else:
            say(
                f"warning: saved by {len(owns)} processes, resumed by {self.accelerator.num_processes}: image pools "
                "are dealt out anew, random states and the means of the current line of curves start afresh"
            )
