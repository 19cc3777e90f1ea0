"""The one loop for all algorithms: batches in, updates, averages, curves, sample sheets, states and generators out.

Path of a batch: the loader gives {"A": x, "B": y} in [-1, 1]; `algorithm.losses(batch)` yields (optimizer, terms);
`Run.update` does backward, step and zero_grad for each yield; then EMA, and what is due by images seen.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, send_to_device, set_seed
from torch import Tensor, nn
from tqdm import tqdm

from cyclegan.algorithms import build_algorithm, complete_config
from cyclegan.config import Config, ConfigError, load_config
from cyclegan.data.dataset import EpochBatches, UnpairedDataset, epoch_length, new_loader
from cyclegan.data.folders import find_split
from cyclegan.data.images import ImageError
from cyclegan.errors import UserError
from cyclegan.inference.generator_file import save_generator
from cyclegan.training import checkpoint
from cyclegan.training.ema import Ema
from cyclegan.training.journal import Journal, Means
from cyclegan.training.optimizers import check_groups, new_optimizer
from cyclegan.training.samples import sample_images, sample_sheet, save_atomically
from cyclegan.training.schedules import LearningRate
from cyclegan.training.stop import Stopper


class Diverged(UserError, RuntimeError):
    """Losses or weights became infinite or not a number."""


class WorkerLost(UserError, RuntimeError):
    """A process that reads pictures died."""


@dataclass
class Progress:
    """Where a run is. `images` counts pairs over all processes; `place` those of the current epoch."""

    epoch: int = 0
    place: int = 0
    images: int = 0
    steps: int = 0


def train(config: Config | dict[str, Any] | str | Path, resume: str = "auto") -> Path:
    """Train to the end of the configured run; returns the run's folder.

    Args:
        config: a Config, or what `load_config` takes
        resume: "auto" goes on from the newest intact state, if there is one; "none" starts afresh and sets what is
            there aside; else the folder of a state or of a run to go on from

    Raises ConfigError, FileNotFoundError, ImageError and CheckpointError with one line that says what to change,
    Diverged for losses that are no longer finite. A signal (SIGTERM, SIGINT, SIGUSR1) saves and raises SystemExit.
    """
    config = config if isinstance(config, Config) else load_config(config)
    config = complete_config(config)
    with new_accelerator(config) as accelerator:
        run = Run(config, accelerator)
        run.resume(resume)
        run.go()
    return config.folder


@contextmanager
def new_accelerator(config: Config) -> Iterator[Accelerator]:
    """Accelerate for one run; its global state is cleared afterwards, so that a notebook can train again."""
    if config.speed.precision == "fp16" and not torch.accelerator.is_available():
        raise ConfigError("speed.precision: fp16 needs a GPU; on a CPU use bf16 or no")
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        # Said aloud: else the processes that torchrun starts on a CPU would each train alone, in the same folder.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no" if config.speed.precision == "fp64" else config.speed.precision,
        gradient_accumulation_steps=config.training.accumulate,
        log_with=config.logging.trackers or None,
        project_config=ProjectConfiguration(project_dir=config.folder, logging_dir=config.folder / "log"),
        # Networks run several times between two updates, which does not go with buffers sent around before each.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", 1)):
        raise ConfigError(
            f"{os.environ['WORLD_SIZE']} processes were launched but this one sees {accelerator.num_processes}: "
            "on a CPU launch with torchrun, on GPUs with accelerate launch or torchrun"
        )
    try:
        yield accelerator
    finally:
        accelerator.end_training()
        accelerator.free_memory()


class Run:
    """All that a run consists of, and the steps it goes through."""

    def __init__(self, config: Config, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        self.progress, self.means, self.epoch_means = Progress(), Means(), Means()
        self.skipped: set[str] = set()
        self.save_due = False
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.speed.tf32
        torch.use_deterministic_algorithms(config.deterministic)
        set_seed(config.seed)

        algorithm = self.algorithm = build_algorithm(config).to(accelerator.device)
        if config.speed.precision == "fp64":
            algorithm.double()
        if config.speed.channels_last:
            algorithm.to(memory_format=torch.channels_last)
        self.plain = algorithm.generators()
        for generator in self.plain.values():
            generator.checkpointing = config.speed.checkpointing
        self.ema = Ema(self.plain, config.training.ema) if config.training.ema else None
        self.networks = self._prepare_networks()
        self.parameters = {
            name: [parameter for network in networks for parameter in network.parameters()]
            for name, networks in algorithm.trained().items()
        }
        check_groups(config.optimizer, self.parameters)
        self.optimizers = {
            name: accelerator.prepare(new_optimizer(config.optimizer, name, parameters))
            for name, parameters in self.parameters.items()
        }
        scale = self._rate_scale()
        self.rates = {
            name: [group["lr"] * scale for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }

        files = find_split(config.data, "train")
        multiple = max(generator.multiple for generator in self.plain.values())
        self.batches = EpochBatches(
            epoch_length(files, config.data.epoch_size),
            config.training.batch_size,
            accelerator.process_index,
            accelerator.num_processes,
            config.training.batches_per_epoch,
        )
        self.loader = new_loader(
            UnpairedDataset(files, config.data, config.seed, multiple),
            self.batches,
            config.data.workers,
            pin_memory=accelerator.device.type == "cuda",
        )
        self.global_batch = config.training.batch_size * accelerator.num_processes
        self.epoch_images = len(self.batches) * self.global_batch
        self.files = files
        self.rate = LearningRate(
            config.schedule, config.training.epochs, config.training.decay_epochs, self.epoch_images
        )
        self.total_images = min(
            (config.training.epochs + config.training.decay_epochs) * self.epoch_images,
            config.training.max_images or 10**18,
            (config.training.max_steps or 10**18) * self.global_batch * config.training.accumulate,
        )
        self.samples = sample_images(config) if config.logging.samples and accelerator.is_main_process else {}
        set_seed(config.seed + 1 + accelerator.process_index)  # dropout and pools differ from process to process

    def _prepare_networks(self) -> dict[str, nn.Module]:
        """Wrap each trained network by itself and put it back as the same attribute; returns the bare ones by name."""
        trained = {id(network) for networks in self.algorithm.trained().values() for network in networks}
        networks = {name: child for name, child in self.algorithm.named_children() if id(child) in trained}
        if len(networks) != len(trained):
            raise TypeError("trained() must name networks that are attributes of the algorithm")
        for name, network in networks.items():
            if self.config.speed.compile:
                network.compile()
            setattr(self.algorithm, name, self.accelerator.prepare_model(network))
        return networks

    def _rate_scale(self) -> float:
        pairs = self.config.training.batch_size * self.accelerator.num_processes * self.config.training.accumulate
        return {"none": 1.0, "linear": float(pairs), "sqrt": pairs**0.5}[self.config.optimizer.scale_lr]

    # ---- going through the run

    def go(self) -> None:
        config, progress = self.config, self.progress
        self._start()
        with (
            Stopper(self.accelerator, config.training.max_time) as stopper,
            tqdm(
                total=self.total_images,
                initial=progress.images,
                unit="img",
                disable=not self.accelerator.is_main_process,
                mininterval=0.5 if sys.stderr.isatty() else 30,  # a log file wants fewer lines
                dynamic_ncols=True,
            ) as bar,
        ):
            self.bar, self.stopper = bar, stopper
            while progress.images < self.total_images:
                self._epoch()
            self._report(force=True)
            self._sample()
        self.accelerator.wait_for_everyone()

    def _start(self) -> None:
        config, progress = self.config, self.progress
        if self.accelerator.is_main_process:
            config.folder.mkdir(parents=True, exist_ok=True)
            (config.folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        self.accelerator.init_trackers("", init_kwargs={"tensorboard": {"purge_step": progress.images}})
        self.journal = Journal(config.folder / "log", self.accelerator, progress.images)
        sizes = ", ".join(f"{len(paths)} {domain}" for domain, paths in self.files.items())
        self.say(
            f"{config.name}: {sizes}; {self.epoch_images} pairs an epoch, "
            f"{config.training.epochs} + {config.training.decay_epochs} epochs; "
            f"batch {config.training.batch_size} x {self.accelerator.num_processes} processes"
            f" x {config.training.accumulate} accumulated = "
            f"{self.global_batch * config.training.accumulate} pairs an update; "
            f"{self.accelerator.device}, precision {config.speed.precision or self.accelerator.mixed_precision}"
        )
        if progress.images == 0:
            self._sample()

    def _epoch(self) -> None:
        """From where the run is to the end of the epoch, or of the run."""
        progress = self.progress
        for batch in self._batches():
            self.update(batch)
            before = progress.images
            progress.place += self.global_batch
            progress.images += self.global_batch
            if progress.place >= self.epoch_images:
                self._end_epoch()
            self._after_batch(before)
            if progress.images >= self.total_images:
                return

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """The rest of the epoch's batches, on the device."""
        self.batches.epoch, self.batches.start = self.progress.epoch, self.progress.place // self.global_batch
        batches = iter(self.loader)
        while True:
            asked = time.monotonic()
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise WorkerLost(
                    "a loader worker died, often for want of memory; --resume auto goes on from the newest state "
                    "(fewer data.workers need less)"
                ) from None
            self.journal.waited += time.monotonic() - asked
            if batch is None:
                return
            if problem := batch.pop("problem"):
                raise ConfigError(problem)
            self._note_skipped(batch.pop("skipped"))
            yield send_to_device(batch, self.accelerator.device, non_blocking=True)

    def update(self, batch: dict[str, Tensor]) -> None:
        """All updates that the algorithm wants from one batch."""
        if self.config.speed.precision == "fp64":
            batch = {name: value.double() for name, value in batch.items()}
        if self.config.speed.channels_last:
            batch = {name: value.to(memory_format=torch.channels_last) for name, value in batch.items()}
        factor = self.rate.factor(self.progress.epoch, self.progress.images)
        updated = set()
        with self.accelerator.accumulate(*(getattr(self.algorithm, name) for name in self.networks)):
            for name, terms in self.algorithm.losses(batch):
                if name in updated and self.config.training.accumulate > 1:
                    raise ConfigError(f"training.accumulate: not with several updates of {name} for one batch")
                updated.add(name)
                loss = sum(terms.values())
                self.accelerator.backward(loss, inputs=self.parameters[name])
                self._step(name, factor)
                self._note({name: loss, **{f"{name}/{term}": value for term, value in terms.items()}})
        if self.accelerator.sync_gradients:
            self.progress.steps += 1
            if self.ema:
                self.ema.update(self.plain)

    def _step(self, name: str, factor: float) -> None:
        optimizer = self.optimizers[name]
        for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
            group["lr"] = rate * factor
        if self.config.training.clip and self.accelerator.sync_gradients:
            self.accelerator.unscale_gradients(optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters[name], self.config.training.clip)
        optimizer.step()
        optimizer.zero_grad()

    def _note(self, losses: dict[str, Tensor]) -> None:
        self.means.add(losses)
        if self.config.schedule.name == "plateau":
            watch = self.config.schedule.watch
            self.epoch_means.add({watch: losses[watch]} if watch in losses else {})

    # ---- what is due after a batch

    def _after_batch(self, before: int) -> None:
        config, progress = self.config, self.progress

        def due(every: int | None) -> bool:
            return bool(every) and before // every != progress.images // every

        self.bar.update(self.global_batch)
        if due(config.logging.log_every):
            self._report()
        if due(config.logging.sample_every):
            self._sample()
        if due(config.saving.every_images):
            self.save_due = True
        finished = progress.images >= self.total_images
        if not (self.accelerator.sync_gradients or finished):
            return
        reason = self.stopper.reason()
        if self.save_due or finished or reason:
            self.save()
        if reason and not finished:
            self._stop(reason)

    def _end_epoch(self) -> None:
        progress, schedule = self.progress, self.config.schedule
        progress.epoch, progress.place = progress.epoch + 1, 0
        if schedule.name == "plateau":
            means = self.epoch_means.take(self.accelerator)
            if schedule.watch not in means:
                raise ConfigError(f"schedule.watch: no loss {schedule.watch!r}; choices: {', '.join(self.means.sums)}")
            self.rate.end_epoch(means[schedule.watch])
        if progress.epoch % self.config.saving.every_epochs == 0:
            self.save_due = True

    def _report(self, force: bool = False) -> None:
        progress = self.progress
        losses = self.means.take(self.accelerator)
        if not losses:
            return
        if not all(value - value == 0 for value in losses.values()):
            self._diverged(", ".join(name for name, value in losses.items() if value - value != 0))
        rates = {f"lr/{name}": optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self.journal.write(progress.images, progress.epoch, progress.steps, {**losses, **rates})
        self.bar.set_description(f"epoch {-(-progress.images // self.epoch_images)}", refresh=False)
        self.bar.set_postfix({name: f"{losses[name]:.3f}" for name in self.parameters})

    def _sample(self) -> None:
        if not self.samples:
            return
        with self.accelerator.autocast(), evaluating(self.shown()) as generators:
            dtype = torch.float64 if self.config.speed.precision == "fp64" else torch.float32
            images = {domain: value.to(self.accelerator.device, dtype) for domain, value in self.samples.items()}
            sheet = sample_sheet(generators, images)
        save_atomically(sheet, self.config.folder / "samples" / f"{self.progress.images:09d}.png")
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                picture = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8)
                picture = picture.view(sheet.height, sheet.width, 3)
                tracker.writer.add_image("samples", picture, self.progress.images, dataformats="HWC")

    def _note_skipped(self, messages: list[str]) -> None:
        if messages and self.config.data.corrupt == "fail":
            raise ImageError(f"{messages[0]} (data.corrupt=skip goes on without such pictures)")
        for message in set(messages) - self.skipped:
            self.skipped.add(message)
            tqdm.write(f"warning: skipped ({len(self.skipped)} so far): {message}")

    def _stop(self, reason: str) -> None:
        self.say(f"stopped by {reason} after {self.progress.images} images; --resume auto goes on")
        received = self.stopper.received
        raise SystemExit(128 + received if received else 0)

    def _diverged(self, what: str) -> None:
        states = checkpoint.all_states(self._states)
        good = f"the last good state is {states[-1]}" if states else "no state was saved before"
        raise Diverged(
            f"not finite after {self.progress.images} images: {what}; {good}. "
            "A lower optimizer.lr, training.clip=1 or float32 (speed.precision=no) are the usual cures"
        )

    # ---- state

    @property
    def _states(self) -> Path:
        return self.config.folder / "state"

    def shown(self) -> dict[str, nn.Module]:
        """The generators to show, score and export: their averages where those are kept."""
        return self.ema.generators() if self.ema else self.plain

    def save(self) -> None:
        """A training state, and the generators as files of their own."""
        self.save_due = False
        self._check_finite()
        began = time.monotonic()
        about = {"progress": asdict(self.progress), "config": self.config.model_dump(mode="json")}
        try:
            checkpoint.write_state(
                self._states, self.progress.images, self._shared_state(), self._own_state(), about, self.accelerator
            )
            if self.accelerator.is_main_process:
                self._save_generators()
                checkpoint.drop_old_states(self._states, self.config.saving.keep_last)
        except OSError as error:
            finished = self.progress.images >= self.total_images
            self.say(f"warning: could not save ({error}); older states are untouched" + "; going on" * (not finished))
            if finished:
                raise
        self.accelerator.wait_for_everyone()
        self.stopper.slowest = max(self.stopper.slowest, time.monotonic() - began)

    def _check_finite(self) -> None:
        bad = [
            name
            for name, network in self.networks.items()
            if not all(parameter.isfinite().all() for parameter in network.parameters())
        ]
        if bad:
            self._diverged(f"weights of {', '.join(bad)}")

    def _save_generators(self) -> None:
        domains = {domain: getattr(self.config.data, domain) for domain in ("A", "B")}
        pictures = {
            domain: {"channels": section.channels, "background": section.background}
            for domain, section in domains.items()
        }
        for direction, generator in self.shown().items():
            source, target = direction.split("to")
            about = {
                "direction": direction,
                "input": pictures[source],
                "output": pictures[target],
                "run": self.config.name,
                "images": self.progress.images,
                "ema": self.config.training.ema,
                "config": self.config.model_dump(mode="json"),
            }
            save_generator(self.config.folder / f"{direction}.safetensors", generator, about)

    def _shared_state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": scaler.state_dict() if scaler else {},
            "ema": self.ema.state_dict() if self.ema else {},
            "rate": self.rate.state_dict(),
            "progress": asdict(self.progress),
        }

    def _own_state(self) -> dict[str, Any]:
        """What differs from process to process: random states, pools and running means."""
        return {
            "random": checkpoint.random_states(),
            "memory": {name: child.state_dict() for name, child in self._memories().items()},
            "means": self.means.state_dict(),
            "epoch_means": self.epoch_means.state_dict(),
        }

    def _memories(self) -> dict[str, nn.Module]:
        """Children of the algorithm that remember something but have no weights: image pools."""
        return {
            name: child
            for name, child in self.algorithm.named_children()
            if name not in self.networks and child.state_dict()
        }

    def resume(self, wanted: str) -> None:
        """Restore what `wanted` means, see `train`; says what has changed and what could not be kept."""
        state = self._find_state(wanted)
        if state is None:
            return
        manifest = checkpoint.read_manifest(state)
        changed = checkpoint.changes(manifest["config"], self.config.model_dump(mode="json"))
        shared, owns = checkpoint.read_state(state)
        try:
            self._restore_shared(shared)
        except (RuntimeError, ValueError, KeyError) as error:  # what torch raises where names or shapes do not fit
            network = [line for line in changed if line.split(".")[0] in ("algorithm", "generator", "discriminator")]
            raise checkpoint.CheckpointError(
                f"{state} does not fit this run: {'; '.join(network) or str(error).splitlines()[0]}. "
                "Give the run another name, or --resume none to start afresh"
            ) from None
        self._restore_own(owns)
        self.say(f"resumed from {state}: {self.progress.images} images, epoch {self.progress.epoch + 1}")
        for line in changed:
            self.say(f"  changed since it was saved: {line}")

    def _restore_shared(self, shared: dict[str, Any]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(shared["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(shared["optimizers"][name])
        if self.accelerator.scaler and shared["scaler"]:
            self.accelerator.scaler.load_state_dict(shared["scaler"])
        if self.ema and shared["ema"]:
            self.ema.load_state_dict(shared["ema"])
        elif self.ema:
            self.ema.update(self.plain)  # averaging was off before: start from the weights as they are
        self.rate.load_state_dict(shared["rate"])
        self.progress = Progress(**shared["progress"])

    def _restore_own(self, owns: list[dict[str, Any]]) -> None:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        if len(owns) == world:
            self.means.load_state_dict(owns[rank]["means"], self.accelerator.device)
            self.epoch_means.load_state_dict(owns[rank]["epoch_means"], self.accelerator.device)
            checkpoint.restore_random_states(owns[rank]["random"])
        else:
            set_seed(self.config.seed + self.progress.images + rank)
            self.say(
                f"warning: saved by {len(owns)} processes, resumed by {world}: image pools are dealt out anew, "
                "random states and the running means of the current line of curves start afresh"
            )
        for name, child in self._memories().items():
            own = owns[rank]["memory"][name] if len(owns) == world else checkpoint.dealt_out(owns, name, rank, world)
            child.load_state_dict(own)
        extra = self.progress.place % self.global_batch
        if extra:
            self.progress.place -= extra
            self.say(f"warning: a batch of {self.global_batch} pairs: {extra} pairs of this epoch are seen again")
        if self.progress.place >= self.epoch_images:
            self.progress.epoch, self.progress.place = self.progress.epoch + 1, 0

    def _find_state(self, wanted: str) -> Path | None:
        if wanted == "none":
            self._set_aside()
            return None
        if wanted != "auto":
            folder = Path(wanted)
            states = [folder] if (folder / "manifest.json").exists() else checkpoint.all_states(folder / "state")
            if not states:
                raise checkpoint.CheckpointError(f"--resume: no training state in {folder}")
        else:
            states = checkpoint.all_states(self._states)
        for state in reversed(states):
            problem = checkpoint.damage(state)
            if problem is None:
                return state
            self.say(f"warning: {state} is damaged ({problem}); trying the one before")
        if states:
            raise checkpoint.CheckpointError(f"no intact training state: {states[-1]}: {problem}")
        return None

    def _set_aside(self) -> None:
        """Keep what an earlier run of this name left, under another name."""
        folder = self.config.folder
        if self.accelerator.is_main_process and checkpoint.all_states(self._states):
            number = next(i for i in range(1, 10**6) if not folder.with_name(f"{folder.name}.{i}").exists())
            aside = folder.with_name(f"{folder.name}.{number}")
            shutil.move(folder, aside)
            self.say(f"the earlier run is now {aside}")
        self.accelerator.wait_for_everyone()

    def say(self, message: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(message)


@contextmanager
def evaluating(networks: dict[str, nn.Module]) -> Iterator[dict[str, nn.Module]]:
    """Dropout off, batch norm with its statistics; afterwards as before."""
    before = {name: network.training for name, network in networks.items()}
    for network in networks.values():
        network.eval()
    try:
        yield networks
    finally:
        for name, network in networks.items():
            network.train(before[name])
