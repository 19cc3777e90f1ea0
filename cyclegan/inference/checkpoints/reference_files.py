"""Checkpoints in the layout of pytorch-CycleGAN-and-pix2pix ("the reference") and of CUT: {epoch}_net_{network}.pth.

They hold names and numbers only, so the architecture is told from those. Nothing in a file is ever executed.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan.errors import UserError, reason_of
from cyclegan.whole_files import open_replacing

SUFFIXES = (".pth", ".pt")
# Our D_B judges domain B; the reference calls that one D_A, because it belongs to G_A. One-way models say G and D.
REFERENCE_NAMES = {"G_AB": ("G_A", "G"), "G_BA": ("G_B",), "D_B": ("D_A", "D"), "D_A": ("D_B",)}
DIRECTIONS = {"G_A": "AtoB", "G_B": "BtoA", "G": None}  # G is whatever that model was trained for
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Weights = dict[str, Tensor]

log = logging.getLogger(__name__)


class ReferenceFileError(UserError, ValueError):
    """A checkpoint that cannot be read or written; the message names the file, what was found and what to do."""


def read_weights(path: Path | str) -> Weights:
    """The tensors of one checkpoint under their plain names, as float32 on the CPU.

    `module.` and `_orig_mod.` prefixes (DataParallel, torch.compile) go, and so do the statistics that torch < 0.4
    kept for InstanceNorm. Raises ReferenceFileError.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ReferenceFileError(
            f"cannot read {path}: it is damaged, or holds Python objects beside tensors, which are never executed; "
            "save its state_dict() alone"
        ) from None
    except (OSError, RuntimeError) as error:
        raise ReferenceFileError(f"cannot read {path}: {reason_of(error)}") from None
    except Exception:  # pickle and torch take what is none of their files for one, and stumble over it in many ways
        raise ReferenceFileError(
            f"cannot read {path}: it is damaged, or none that torch.save wrote; a *_net_G*.pth expected"
        ) from None
    weights = _plain_names(_only_tensors(content, path))
    stale = instance_statistics(weights)
    if stale:
        log.warning("%s: dropped %d InstanceNorm statistics that torch < 0.4 kept and nothing uses", path, len(stale))
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
        if name not in stale
    }


def instance_statistics(weights: Mapping[str, Tensor]) -> set[str]:
    """Running statistics of norm layers that have no weight: those of InstanceNorm before torch 0.4."""
    owners = {name.rpartition(".")[0] for name in weights if name.endswith(".running_mean")}
    plain = {owner for owner in owners if f"{owner}.weight" not in weights}
    return {name for name in weights if name.rpartition(".")[0] in plain and name.endswith(STATISTICS)}


def infer_architecture(weights: Mapping[str, Tensor], where: Path | str) -> dict[str, Any]:
    """What `build_generator` needs, from the names and shapes of a generator's tensors.

    Padding, `skip` and a U-Net's dropout leave no trace: they take the network's defaults (reflect, off, 0).
    Raises ReferenceFileError for networks of another kind.
    """
    first, outermost = weights.get("model.1.weight"), weights.get("model.model.0.weight")
    try:
        if first is not None and first.shape[2:] == (7, 7):
            return _resnet(weights, where)
        if outermost is not None and outermost.shape[2:] == (4, 4):
            return _unet(weights)
    except IndexError:
        raise ReferenceFileError(f"{where} is no generator: some of its weights have too few dimensions") from None
    names = ", ".join(f"{name} {tuple(value.shape)}" for name, value in list(weights.items())[:4])
    kind = "a discriminator, not a generator" if _is_discriminator(weights) else "no ResNet or U-Net generator"
    raise ReferenceFileError(f"{where} is {kind} (found {names or 'no tensors'} …); give a *_net_G*.pth file")


def find_reference(folder: Path, network: str, epoch: str | None = None) -> Path | None:
    """The file of a network by the reference's name ("G_A", "D_B", "G"): of `epoch`, else latest, else the last one."""
    files = {
        match[1]: path
        for path in folder.glob(f"*_net_{network}.pth")
        if (match := re.fullmatch(rf"(.+)_net_{network}\.pth", path.name))
    }
    if epoch is not None or not files:
        return files.get(epoch)
    return files.get("latest") or files[max(files, key=_age)]


def named_in(path: Path) -> str | None:
    """The network that a file's name tells: "G_A" of latest_net_G_A.pth."""
    match = re.search(r"(?:^|_)net_([A-Z](?:_[AB])?)$", path.stem)
    return match[1] if match else None


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a plain state_dict, complete or not at all, as the reference's `load_networks` expects it."""
    plain = {name: value.detach().cpu().clone() for name, value in weights.items()}
    with open_replacing(path) as file:
        torch.save(plain, file)


def check_writable(architecture: Mapping[str, Any], where: Path | str) -> None:
    """Raise ReferenceFileError if neither the reference nor CUT has a network for this architecture."""
    usual = {"padding": "reflect", "skip": False, "spectral": False}
    if architecture["name"] == "resnet":
        usual |= {"downs": 2}
    if architecture["name"] not in ("resnet", "unet", "patch", "pixel"):
        raise ReferenceFileError(f"{where}: the reference has no network {architecture['name']}; use cyclegan export")
    odd = [f"{key} {architecture[key]}" for key, value in usual.items() if architecture.get(key, value) != value]
    if architecture.get("norm", "instance") not in ("instance", "batch"):
        odd.append(f"norm {architecture['norm']}")
    if architecture.get("upsample") == "resize":
        odd.append("upsample resize")
    if odd:
        raise ReferenceFileError(f"{where}: the reference has no network with {', '.join(odd)}; use cyclegan export")


def _only_tensors(content: Any, path: Path | str) -> Weights:
    """The state_dict itself, or the one state_dict inside a checkpoint that holds other things too."""
    if _is_state_dict(content):
        weights = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if all(value.untyped_storage().nbytes() >= value.numel() * value.element_size() for value in weights.values()):
            return weights
        raise ReferenceFileError(f"cannot use {path}: its tensors claim more numbers than the file holds")
    inside = {name: value for name, value in content.items() if _is_state_dict(value)} if _is_map(content) else {}
    if len(inside) == 1:
        return _only_tensors(*inside.values(), path)
    found = f"networks {', '.join(map(str, inside))}" if inside else f"a {type(content).__name__} without tensors"
    raise ReferenceFileError(f"cannot use {path}: found {found}; save one network's state_dict() in a file of its own")


def _is_map(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(name, str) for name in content)


def _is_state_dict(content: Any) -> bool:
    return _is_map(content) and any(isinstance(value, Tensor) for value in content.values())


def _plain_names(weights: Weights) -> Weights:
    for prefix in ("module.", "_orig_mod."):
        if weights and all(name.startswith(prefix) for name in weights):
            return _plain_names({name[len(prefix) :]: value for name, value in weights.items()})
    return weights


def _resnet(weights: Mapping[str, Tensor], where: Path | str) -> dict[str, Any]:
    convolutions = {name: value for name, value in weights.items() if name.endswith(".weight") and value.ndim == 4}
    top = {int(match[1]): value for name, value in convolutions.items() if (match := _TOP.fullmatch(name))}
    inside = [(int(m[1]), int(m[2])) for name in convolutions if (m := _BLOCK.fullmatch(name))]
    if any(place == 0 for _, place in inside):
        raise ReferenceFileError(f"{where}: blocks padded by their convolutions (padding_type zero) have no match here")
    blurs = {value.shape[-1] for name, value in weights.items() if name.endswith(".filt")}
    after_blocks = [top[place] for place in sorted(top)][len(top) // 2]
    transposed = after_blocks.shape[0] > after_blocks.shape[1]
    return {
        "name": "resnet",
        "in_channels": top[1].shape[1],
        "out_channels": top[max(top)].shape[0],
        "width": top[1].shape[0],
        "blocks": len({block for block, _ in inside}),
        "downs": (len(top) - 2) // 2,
        "norm": _norm(weights, "model.1.bias"),
        "dropout": 0.5 if any(place == 6 for _, place in inside) else 0.0,
        "downsample": "antialias" if 3 in blurs else "strided",
        "upsample": "antialias" if 4 in blurs else "transpose" if transposed else "resize",
    }


_TOP = re.compile(r"model\.(\d+)\.weight")
_BLOCK = re.compile(r"model\.(\d+)\.conv_block\.(\d+)\.weight")


def _unet(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    outermost, last = weights["model.model.0.weight"], weights.get("model.model.3.weight")
    convolutions = sum(name.endswith(".weight") and value.ndim == 4 for name, value in weights.items())
    return {
        "name": "unet",
        "in_channels": outermost.shape[1],
        "out_channels": last.shape[1] if last is not None else outermost.shape[1],
        "width": outermost.shape[0],
        "downs": convolutions // 2,
        "norm": _norm(weights, "model.model.0.bias"),
    }


def _norm(weights: Mapping[str, Tensor], bias: str) -> str:
    if any(name.endswith(".running_mean") for name in weights):
        return "batch"
    if any(name.endswith(".weight") and value.ndim == 1 for name, value in weights.items()):
        return "group"
    return "instance" if bias in weights else "none"


def _is_discriminator(weights: Mapping[str, Tensor]) -> bool:
    kernels = [value for name, value in weights.items() if name.endswith(".weight") and value.ndim == 4]
    return bool(kernels) and kernels[-1].shape[0] == 1 and ("model.0.weight" in weights or "net.0.weight" in weights)


def _age(epoch: str) -> tuple[bool, int, str]:
    digits = epoch.removeprefix("iter_")
    return digits.isdigit(), int(digits) if digits.isdigit() else 0, epoch
