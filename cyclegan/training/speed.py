"""Which switches of precision and speed go together, with each other and with the run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from cyclegan.config import Config, ConfigError


def check_speed(config: Config, device: torch.device) -> None:
    """Raises ConfigError for what cannot work, or would be switched on for nothing.

    Args:
        config: a complete one, with the options of its algorithm and networks
        device: to train on
    """
    speed, gpu = config.speed, device.type != "cpu"
    precision = speed.precision or os.environ.get("ACCELERATE_MIXED_PRECISION")
    if precision == "fp8":
        raise ConfigError("speed.precision: not fp8, which accelerate launch asks for; choices: no, fp16, bf16")
    if precision == "fp16" and not gpu:
        raise ConfigError("speed.precision: fp16 needs a GPU; on a CPU use bf16 or no")
    if speed.tf32 and speed.precision == "fp64":
        raise ConfigError("speed.tf32: nothing is float32 with speed.precision=fp64")
    if speed.tf32 and not gpu:
        raise ConfigError("speed.tf32: needs an NVIDIA GPU; on a CPU leave it out")
    if speed.winograd and gpu and speed.choice == "plain":  # a run that chose it on a CPU may go on elsewhere
        raise ConfigError("speed.winograd: is for CPUs; GPUs' libraries choose such ways by themselves")
    if speed.winograd and precision not in (None, "no"):
        raise ConfigError(f"speed.winograd: is for float32; leave it out with precision {precision}")
    if speed.winograd and speed.compile:
        raise ConfigError("speed.winograd: not in compiled networks; choose it or speed.compile")
    if speed.checkpointing and config.generator["name"] not in ("resnet", "ugatit"):
        raise ConfigError(f"speed.checkpointing: generator.name={config.generator['name']} has no residual blocks")
    if speed.checkpointing and config.generator.get("norm") == "batch":
        raise ConfigError("speed.checkpointing: computing again would count generator.norm=batch's statistics twice")
    if speed.compile and config.algorithm.get("adversarial") == "wgan-gp":
        raise ConfigError("speed.compile: cannot differentiate twice, which algorithm.adversarial=wgan-gp needs")
    if speed.compile and config.algorithm.get("r1"):
        raise ConfigError("speed.compile: cannot differentiate twice, which algorithm.r1 needs")
    if speed.compile and not can_compile(device):
        raise ConfigError(
            "speed.compile: no compiler here, or none with Python's headers (python3-dev); a GPU also needs Triton and "
            "must be a Volta or later; go on with speed.compile=false"
        )
    if speed.compile_mode and not speed.compile:
        raise ConfigError(f"speed.compile_mode: {speed.compile_mode} is for speed.compile=true; set that too")
    if speed.compile_mode == "reduce-overhead" and device.type != "cuda":
        raise ConfigError("speed.compile_mode: reduce-overhead records CUDA graphs, which need an NVIDIA GPU")
    if precision == "fp16" and (config.algorithm.get("r1") or config.algorithm.get("adversarial") == "wgan-gp"):
        raise ConfigError(
            "speed.precision: fp16 is too coarse for gradients of gradients (r1, wgan-gp); use bf16 or no"
        )


def can_compile(device: torch.device) -> bool:
    """A compiler with Python's headers is there for what torch.compile generates; for GPUs it generates with Triton."""
    if device.type not in ("cpu", "cuda"):
        return True
    names = ("CC", "cc", "gcc", "clang") if device.type == "cuda" else ("CXX", "c++", "g++", "clang++", "cl")
    found = any(map(shutil.which, (os.environ.get(names[0], ""), *names[1:])))
    return found and _has_headers() and (device.type == "cpu" or _has_triton(device))


def _has_headers() -> bool:
    """Python's; on a Mac they come with it and may lie elsewhere."""
    folder = sysconfig.get_path("include", "nt" if os.name == "nt" else "posix_prefix")
    return sys.platform == "darwin" or Path(folder, "Python.h").exists()


def _has_triton(device: torch.device) -> bool:
    """Installed, and made for GPUs of this age."""
    return importlib.util.find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)
