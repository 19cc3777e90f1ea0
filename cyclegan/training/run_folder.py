"""The folder of a run, beside its states: generators as files of their own, and the folder of an earlier run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from cyclegan.config import Config
from cyclegan.evaluation.ranks import on_first_rank
from cyclegan.inference.checkpoints.generator_file import save_generator


def save_generators(config: Config, generators: Mapping[str, nn.Module], images: int) -> None:
    """AtoB.safetensors and BtoA.safetensors, as far as there are such directions, after so many images."""
    pictures = {
        domain: getattr(config.data, domain).model_dump(include={"channels", "background"}) for domain in ("A", "B")
    }
    for direction, generator in generators.items():
        source, target = direction.split("to")
        about = {
            "direction": direction,
            "input": pictures[source],
            "output": pictures[target],
            "run": config.name,
            "images": images,
            "ema": config.training.ema,
            "config": config.model_dump(mode="json"),
        }
        save_generator(config.folder / f"{direction}.safetensors", generator, about)


def set_aside(config: Config, accelerator: Accelerator) -> Path | None:
    """Give what an earlier run of this name left another name, which is returned; every process calls this.

    Where the run starts from it (`init_from`), the config then says where it lies.
    """
    accelerator.wait_for_everyone()  # all have read from it what they start from
    folder = config.folder
    aside = on_first_rank(lambda: _free_name(folder) if (folder / "config.yaml").exists() else None)
    if aside is None:
        return None
    if accelerator.is_main_process:
        shutil.move(folder, aside)
    config.init_from = _moved(config.init_from, folder, aside)
    accelerator.wait_for_everyone()
    return aside


def _free_name(folder: Path) -> Path:
    return next(path for i in count(1) if not (path := folder.with_name(f"{folder.name}.{i}")).exists())


def _moved(source: Any, folder: Path, to: Path) -> Any:
    """A path, or several by name, where what lay in a folder lies in another now."""
    if isinstance(source, dict):
        return {name: _moved(path, folder, to) for name, path in source.items()}
    inside = source is not None and Path(source).resolve().is_relative_to(folder.resolve())
    return to / Path(source).resolve().relative_to(folder.resolve()) if inside else source
