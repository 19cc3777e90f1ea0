"""Painting picture files and folders of them, with a curve and pictures of the way there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cyclegan.data.images import read_image, to_tensor
from cyclegan.errors import UserError, reason_of
from cyclegan.inference.files import Report
from cyclegan.inference.picture_files import FORMATS, Picture, read_picture, write_picture
from cyclegan.inference.styling import refuse_folder
from cyclegan.inference.work_list import Job
from cyclegan.networks.backbones import Backbone
from cyclegan.neural_style.canvas import Model, Step, stylize
from cyclegan.neural_style.recipe import Recipe, RecipeError
from cyclegan.whole_files import open_replacing


@dataclass(frozen=True)
class Wishes:
    """What is wanted of the files.

    size: pixels of the longer side; None keeps the content's
    overwrite: paint again what is there
    every: write the picture after so many steps, into a folder beside it; 0 never
    curve: a JSON line a step goes there
    quality: of JPEG and WebP
    progress: show a bar
    """

    size: int | None = 512
    overwrite: bool = False
    every: int = 0
    curve: TextIO | None = None
    quality: int = 95
    progress: bool = True


def read_styles(
    pictures: Sequence[Path],
    weights: Sequence[float] = (),
    masks: Sequence[Path] = (),
    own_masks: Sequence[Path] = (),
) -> list[Model]:
    """The styles of every picture; weights and masks, if any, one for each. Raises RecipeError and ImageError."""
    for name, values in (("--style-weights", weights), ("--mask", masks), ("--style-mask", own_masks)):
        if values and len(values) != len(pictures):
            raise RecipeError(f"{name}: one for each of {len(pictures)} styles expected, found {len(values)}")
    for path in pictures:
        refuse_folder(path)
    nothing = [None] * len(pictures)
    return [
        Model(_tensor(read_image(style)), weight, _mask(mask), _mask(own))
        for style, weight, mask, own in zip(
            pictures,
            weights or [1 / len(pictures)] * len(pictures),
            masks or nothing,
            own_masks or nothing,
            strict=True,
        )
    ]


def stylize_files(
    jobs: Sequence[Job],
    styles: Sequence[Model],
    recipe: Recipe,
    wishes: Wishes,
    device: torch.device | str = "cpu",
) -> Report:
    """One painting a job. A picture that cannot be read or painted does not stop the others.

    Raises RecipeError for a backbone or layers that there are none of, and WeightsError.
    """
    backbone = recipe.load_backbone().to(device)
    styles = [Model(*(v.to(device) if isinstance(v, Tensor) else v for v in vars(style).values())) for style in styles]
    painted = Report()
    for job in jobs:
        if job.target.exists() and not wishes.overwrite:
            painted.skipped.append(job.target)
            continue
        try:
            picture = read_picture(job.source)
            (job.below or job.target.parent).mkdir(parents=True, exist_ok=True)
            job.make_folder()
            _paint(job, _of_size(picture, wishes.size), styles, recipe, backbone, wishes)
        # Not to be read or written, too narrow, a loss that is no number, or too large for the memory: others may do.
        except (UserError, OSError, MemoryError, RuntimeError) as error:
            painted.failed[job.source] = reason_of(error)
            continue
        painted.done.append(job.target)
    return painted


def _paint(
    job: Job, content: Picture, styles: Sequence[Model], recipe: Recipe, backbone: Backbone, wishes: Wishes
) -> None:
    device = backbone.mean.device
    with tqdm(
        total=recipe.steps * recipe.levels, desc=job.source.name, unit="step", disable=None if wishes.progress else True
    ) as bar:

        def watch(step: Step) -> None:
            bar.update()
            bar.set_postfix({name: f"{value:.3g}" for name, value in step.losses.items()}, refresh=False)
            if wishes.curve:
                about = {"picture": str(job.source), "level": step.level, "step": step.step, "lr": step.lr}
                wishes.curve.write(json.dumps({**about, **step.losses}) + "\n")
                wishes.curve.flush()
            if wishes.every and (step.step + 1) % wishes.every == 0:
                folder = job.target.with_name(f"{job.target.stem}.steps")
                folder.mkdir(exist_ok=True)
                _write(step.picture(), Picture(content.pixels), folder / f"{step.level}-{step.step + 1:05d}.png", 95)

        made = stylize(_tensor(content.pixels).to(device), styles, recipe, backbone, watch)
    _write(made, content, job.target, wishes.quality)


def _write(made: Tensor, like: Picture, path: Path, quality: int) -> None:
    """With the colour profile and the EXIF of the picture that it was made from."""
    pixels = ((made[0].cpu().permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    with open_replacing(path) as file:
        write_picture(like.with_pixels(pixels), file, FORMATS[path.suffix.lower()], quality)


def _of_size(picture: Picture, longest: int | None) -> Picture:
    """Shrunk or enlarged, and opaque: paint covers what was transparent."""
    pixels = picture.pixels if not picture.deep else np.rint(picture.pixels * 255).astype(np.uint8)
    if longest:
        height, width = (max(1, round(side * longest / max(picture.size))) for side in picture.size)
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    return Picture(pixels, None, picture.profile, picture.exif)


def _tensor(pixels: np.ndarray) -> Tensor:
    return to_tensor(pixels)[None]


def _mask(path: Path | None) -> Tensor | None:
    """(1, 1, h, w) in [0, 1]."""
    return None if path is None else (_tensor(read_image(path, channels=1, background="black")) + 1) / 2
