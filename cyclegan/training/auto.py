"""`speed: auto`: what is safe and fast on the device found, chosen once for a run and written down in its config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from cyclegan.config import Config, read_yaml
from cyclegan.devices import cpu_features, has_fast_bf16, has_fast_winograd
from cyclegan.networks import build_generator
from cyclegan.networks.winograd import use_winograd
from cyclegan.training import checkpoint
from cyclegan.training.speed import can_compile

MOST_WORKERS = 8
UNTRIED = ("adain", "fast_style", "linear", "variational")  # in bf16 or channels_last: they compare statistics


def with_speed(
    config: Config, device: torch.device, resume: str = "auto", restarted: bool = False
) -> tuple[Config, str | None]:
    """The run with what `speed: auto` leaves open filled in, and a line that says what was chosen.

    A run that goes on keeps what it began with, wherever that was; what options give is never changed.

    Args:
        config: the run
        device: to train on
        resume: as in `train`
        restarted: by a scheduler, so that the run goes on if it has begun, whatever `resume` says
    """
    if config.speed.choice != "auto":
        return config, None
    begun = [config.folder] * (resume == "auto" or restarted) + [Path(resume)] * (resume not in ("auto", "none"))
    kept = next(filter(None, map(_kept, begun)), None)
    chosen = kept or chosen_speed(config, device)
    if config.speed.winograd and device.type == "cpu":  # given, also to a run that began in bf16
        chosen = {**chosen, "precision": _launched_precision(), "compile": False}
    open_ = {key: value for key, value in chosen.items() if key not in config.speed.model_fields_set}
    workers = config.data.workers if "workers" in config.data.model_fields_set else new_workers(device)
    speed, data = config.speed.model_copy(update=open_), config.data.model_copy(update={"workers": workers})
    if "winograd" in open_ and (speed.precision not in (None, "no") or speed.compile):
        speed.winograd = False  # it is for float32 and not compiled, whether chosen or given
    words = [f"{key}={value}" for key, value in speed.model_dump(exclude={"choice"}).items() if value]
    source = "as the run began" if kept else f"on {_name(device)}"
    line = f"speed: auto {source}: {', '.join([*words, f'data.workers={workers}'])} (speed=plain switches all off)"
    return config.model_copy(update={"speed": speed, "data": data}), line


def chosen_speed(config: Config, device: torch.device) -> dict[str, Any]:
    """Values for the speed section; winograd for whoever ends in float32.

    bf16 has float32's range, and losses, weights and Adam stay float32; but gradients of gradients are too coarse in
    it. Its convolutions want channels_last, on CPUs too, as do Winograd's and all of AVX-512's; with AVX2 only, others
    are slower in it. Compiling pays for itself only over a long run, and for pictures of one size.
    """
    algorithm = config.algorithm
    twice = bool(algorithm.get("r1")) or algorithm.get("adversarial") == "wgan-gp"
    tried = not twice and algorithm["name"] not in UNTRIED
    gpu = device.type == "cuda"
    winograd = has_fast_winograd(device) and _has_convolutions_for_winograd(config)
    avx512 = device.type == "cpu" and "avx512f" in cpu_features()
    bf16, launched = tried and has_fast_bf16(device), _launched_precision()
    return {
        "precision": launched if launched != "no" else "bf16" if bf16 else "no",
        "channels_last": tried and (has_fast_bf16(device) or winograd or avx512),
        "winograd": winograd,
        "compile": gpu and config.data.one_size and not twice and not config.deterministic and can_compile(device),
        "tf32": False,
        "checkpointing": False,
    }


def _launched_precision() -> str:
    """What accelerate launch was given; "no" is what it says unasked."""
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def _has_convolutions_for_winograd(config: Config) -> bool:
    with torch.device("meta"):
        return use_winograd(build_generator(config.generator)) > 0


def new_workers(device: torch.device) -> int:
    """Loader processes for each training process: beside a GPU all its cores but one; a CPU needs its own to train."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return 1 if device.type == "cpu" else max(1, min(MOST_WORKERS, share - 1))


def _kept(folder: Path) -> dict[str, Any] | None:
    """What the run of that folder, or of that state, chose when it began."""
    try:
        if (folder / "manifest.json").exists():
            about = checkpoint.read_manifest(folder)["config"]
        else:
            about = read_yaml(folder / "config.yaml")
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):  # what is wrong is said by who resumes
        return None
    match about:
        case {"speed": {"choice": "auto", **speed}}:
            return speed
    return None


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = sorted(cpu_features() & {"amx_bf16", "avx512_bf16"})
    return f"{device.type} with {', '.join(found)}" if has_fast_bf16(device) else device.type
