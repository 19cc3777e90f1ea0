"""A generator in one safetensors file that describes itself: weights, architecture, and how pictures are prepared."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from cyclegan.errors import UserError
from cyclegan.networks import build_generator

KEY, FORMAT = "cyclegan", 1
DIRECTIONS = ("AtoB", "BtoA")


class GeneratorFileError(UserError, ValueError):
    """A generator that cannot be loaded; the message names the file, what was found and what to do."""


def save_generator(path: Path | str, generator: nn.Module, about: dict[str, Any]) -> None:
    """Write a generator atomically.

    Args:
        path: the file, by convention AtoB.safetensors or BtoA.safetensors
        generator: a network from `build_generator`, which carries its architecture
        about: what else the file should tell, in JSON's types: "direction", "input" and "output" (channels and
            background of the pictures), "run", "images" …
    """
    path = Path(path)
    weights = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    card = {"format": FORMAT, "architecture": generator.architecture, **about}
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        file.write(save(weights, metadata={KEY: json.dumps(card)}))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_generator(source: Path | str, direction: str | None = None, device: torch.device | str = "cpu") -> nn.Module:
    """The trained generator of a run, ready to use: (N, C, H, W) in [-1, 1] -> the same, in eval mode.

    Args:
        source: a generator file (*.safetensors), or a run's folder
        direction: "AtoB" or "BtoA"; needed for a folder with both
        device: where to put it

    Returns a network that also has `about`, the file's description (direction, architecture, input, output, run …).
    Raises GeneratorFileError.
    """
    path = find_generator(Path(source), direction)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            card = (file.metadata() or {}).get(KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError) as error:
        raise GeneratorFileError(f"cannot read {path}: {error}") from None
    if card is None:
        raise GeneratorFileError(f"{path} holds weights but not our description of a generator")
    about = json.loads(card)
    if about["format"] > FORMAT:
        raise GeneratorFileError(f"{path} was written by a newer version (format {about['format']}); update cyclegan")
    if direction and about.get("direction") != direction:
        raise GeneratorFileError(f"{path} translates {about.get('direction')}, not {direction}")
    generator = build_generator(about["architecture"]).to(device)
    generator.load_state_dict(weights)
    generator.about = about
    return generator.eval().requires_grad_(False)


def find_generator(source: Path, direction: str | None = None) -> Path:
    """The generator file that `source` (a file or a run's folder) and `direction` mean. Raises GeneratorFileError."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise GeneratorFileError(f"no file or folder {source}")
    found = {path.stem: path for path in sorted(source.glob("*.safetensors")) if path.stem in DIRECTIONS}
    if direction is None and len(found) == 1:
        return next(iter(found.values()))
    if direction in found:
        return found[direction]
    names = ", ".join(path.name for path in found.values()) or "no AtoB.safetensors or BtoA.safetensors"
    todo = "give the direction AtoB or BtoA" if found else "is it the folder of a run that has saved?"
    raise GeneratorFileError(f"{source}: found {names}; {todo}")
