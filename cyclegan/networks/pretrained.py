"""Files of pretrained weights: found on this machine or downloaded, and known by their sha256; networks for them."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn
from tqdm import tqdm

from cyclegan.errors import UserError


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights: the names it goes by, where it is, and the sha256 of its bytes.

    Of torchvision's files no more than the first eight digits are published, in their names: enough against damage,
    not against somebody who wants to deceive.
    """

    names: tuple[str, ...]
    url: str
    sha256: str  # or how it begins
    variable: str  # environment variable with the path of a copy


class WeightsError(UserError, RuntimeError):
    """Weights that are not there or not what they should be; the message says what to do."""


class MissingPackageError(UserError, ImportError):
    """An optional package that is not installed; the message says how to install it."""


def find_weights(weights: WeightsFile, path: Path | str | None = None, download: bool = True) -> Path:
    """The local file: `path`, else the environment variable, else torch hub's cache, else downloaded into that cache.

    A path that the user names is taken as it is, since it may be another network of the same shape; the cache and the
    download must have the sha256. Raises WeightsError with one line.
    """
    named = path or os.environ.get(weights.variable)
    if named:
        named = Path(named).expanduser()
        if not named.is_file():
            source = "" if path else f" (from {weights.variable})"
            raise WeightsError(f"no weights file {named}{source}: expected {weights.names[0]} from {weights.url}")
        return named
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in weights.names:
        if (folder / name).is_file():
            return _verified(folder / name, weights)
    if not download:
        raise WeightsError(_what_to_do(weights, folder, "is not there"))
    return _downloaded(weights, folder)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        if hasattr(hashlib, "file_digest"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()  # Python 3.10
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _verified(path: Path, weights: WeightsFile) -> Path:
    found = sha256_of(path)
    if not found.startswith(weights.sha256):
        raise WeightsError(f"{path} is damaged: sha256 {found} instead of {_shown(weights)}; delete it and try again")
    return path


def _downloaded(weights: WeightsFile, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:  # on the same disk, so that renaming is atomic
            partial = Path(scratch) / weights.names[0]
            with open(partial, "wb") as file, urllib.request.urlopen(weights.url, timeout=30) as response:
                _copy(response, file, weights.names[0])
            if not sha256_of(partial).startswith(weights.sha256):
                raise WeightsError(_what_to_do(weights, folder, "arrived damaged"))
            return partial.rename(folder / weights.names[0])
    except OSError as error:  # URLError is one
        reason = getattr(error, "reason", error)
        raise WeightsError(_what_to_do(weights, folder, f"could not be downloaded ({reason})")) from error


def _copy(response: BinaryIO, file: BinaryIO, name: str) -> None:
    total = int(response.headers.get("Content-Length") or 0) or None
    with tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=None) as bar:
        while block := response.read(1 << 20):
            file.write(block)
            bar.update(len(block))


def _shown(weights: WeightsFile) -> str:
    return weights.sha256 + "…" * (len(weights.sha256) < 64)


def _what_to_do(weights: WeightsFile, folder: Path, problem: str) -> str:
    return (
        f"{weights.names[0]} {problem}: fetch {weights.url} (sha256 {_shown(weights)}) and put it into {folder}, "
        f"or name a copy in {weights.variable}"
    )


def new_of_torchvision(name: str, **arguments: bool | int) -> nn.Module:
    """One of torchvision's networks with fresh weights."""
    import torchvision.models  # brings torch's compiler: a third of a program's start, which few need

    return torchvision.models.get_model(name, **arguments)
