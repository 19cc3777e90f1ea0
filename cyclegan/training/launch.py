"""Accelerate for one run: device, processes and precision, and what can be wrong with how it was launched."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, parse_flag_from_env

from cyclegan.config import Config, ConfigError
from cyclegan.devices import tf32
from cyclegan.errors import UserError, reason_of
from cyclegan.training.journal import end_trackers
from cyclegan.training.speed import check_speed


def found_device() -> torch.device:
    """The kind of device that a run trains on here."""
    if parse_flag_from_env("ACCELERATE_USE_CPU"):  # accelerate launch --cpu
        return torch.device("cpu")
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


@contextmanager
def new_accelerator(config: Config) -> Iterator[Accelerator]:
    """Accelerate for one run; its global state is cleared before, so that a notebook can train again, elsewhere too."""
    device = found_device()
    check_speed(config, device)
    if missing := set(config.logging.trackers) - set(map(str, get_available_trackers())):
        raise ConfigError(f"logging.trackers: no {', '.join(sorted(missing))} here; pip install it, or leave it out")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS has no deterministic products
    met = torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not met)  # which has the device
    accelerator = _join_the_others(
        # Said aloud: else the processes that torchrun starts on a CPU would each train alone, in the same folder.
        cpu=device.type == "cpu",
        mixed_precision="no" if config.speed.precision == "fp64" else config.speed.precision,
        gradient_accumulation_steps=config.training.accumulate,
        log_with=config.logging.trackers or None,
        project_config=ProjectConfiguration(project_dir=config.folder, logging_dir=config.folder / "log"),
        # Networks run several times between two updates, which does not go with buffers sent around before each.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.num_processes > 1 and not met:
        atexit.register(_leave_the_others)
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", 1)):
        raise ConfigError(
            f"{os.environ['WORLD_SIZE']} processes were launched but this one sees {accelerator.num_processes}: "
            "on a CPU launch with torchrun, on GPUs with accelerate launch or torchrun"
        )
    try:
        with _switches(config):
            yield accelerator
    finally:
        end_trackers(accelerator)
        accelerator.free_memory()


@contextmanager
def _switches(config: Config) -> Iterator[None]:
    """PyTorch's, which are the whole process's: as the run wants them, and after it as they were."""
    cudnn, debug_mode = torch.backends.cudnn, torch.get_deterministic_debug_mode()
    trial = cudnn.benchmark
    # Of all the ways of cuDNN, once for each size: that pays where batches have one, but luck decides which is fastest.
    cudnn.benchmark = config.data.one_size and not config.deterministic
    torch.use_deterministic_algorithms(config.deterministic)
    try:
        with tf32(config.speed.tf32):
            yield
    finally:
        cudnn.benchmark = trial
        torch.set_deterministic_debug_mode(debug_mode)


def _leave_the_others() -> None:
    """At the program's end, not that of a run: processes that meet again right away may wait for each other's past."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _join_the_others(**options: Any) -> Accelerator:
    try:
        return Accelerator(**options)
    except RuntimeError as error:
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            raise
        raise UserError(
            f"processes that torchrun started again do not meet ({reason_of(error)}); with --max-restarts "
            "launch as TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --standalone ... (or --rdzv_backend c10d)"
        ) from None
