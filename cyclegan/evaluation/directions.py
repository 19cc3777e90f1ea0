"""The directions of a run on one split: generators, pictures, and which are counterparts of which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cyclegan.config import Config, ConfigError, Data, load_config
from cyclegan.data.folders import distinct_names, find_folder, find_split
from cyclegan.data.images import ImageError
from cyclegan.data.masks import find_masks, mask_tensor, read_mask
from cyclegan.data.transforms import PlainTransform
from cyclegan.errors import UserError
from cyclegan.evaluation.counterparts import counterparts
from cyclegan.evaluation.features import Pictures
from cyclegan.evaluation.sides import pictures_of
from cyclegan.inference.checkpoints.generator_file import load_generator
from cyclegan.inference.translate import translate_tensor
from cyclegan.losses import within
from cyclegan.networks.styled import StyledGenerator


class SplitError(UserError, ValueError):
    """A split that cannot be translated; the message says what is missing."""


@dataclass
class Direction:
    """One direction of a run on one split."""

    name: str
    generator: nn.Module
    back: nn.Module | None
    folder: Path
    files: list[Path]
    truths: dict[Path, Path]  # the true translations, where they are known
    about_truths: str  # a sentence
    out: Path
    inputs: Pictures
    references: Pictures  # real ones of the target domain
    read: Callable[[Path], Tensor]  # gives (C, H, W) in [-1, 1]
    read_target: Callable[[Path], Tensor]  # the same for references and truths
    masks: dict[Path, Path]  # of files, where they have some
    reference_masks: dict[Path, Path]  # of references; apart, as side by side both are halves of the same files
    styles: dict[Path, Path]  # of files, if the generator takes a style: references in turn

    def outputs(self) -> dict[Path, Path]:
        """Where each picture's translation goes: same sub-folder, same name, as PNG."""
        return {path: self.out / f"{name}.png" for path, name in distinct_names(self.files, self.folder).items()}

    def styles_of(self, paths: Sequence[Path], images: Tensor) -> list[Tensor] | None:
        """The pictures of the target domain whose styles these are painted in; None if the generator takes none."""
        if not self.styles:
            return None
        return [self.read_target(self.styles[path])[None].to(images) for path in paths]


def masks_of(masks: dict[Path, Path], paths: Sequence[Path], images: Tensor) -> Tensor | None:
    """(N, 1, H, W), 1 where the pictures at these paths are to be translated; None if their domain has no masks."""
    if not masks:
        return None
    size = tuple(images.shape[2:])
    return torch.stack([mask_tensor(read_mask(masks[path], size)) for path in paths]).to(images)


def translation(
    generator: nn.Module, mask: Tensor | None, background: Tensor, styles: Sequence[Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    """The generator as a function of images, in a style each, with what is outside the mask as it was."""

    def translated(images: Tensor) -> Tensor:
        if styles is None:
            return within(mask, translate_tensor(generator, images), background)
        made = [translate_tensor(generator, *both) for both in zip(images.split(1), styles, strict=True)]
        return within(mask, torch.cat(made), background)

    return translated


def styles_in_turn(generator: nn.Module, contents: Sequence[Path], styles: Sequence[Path]) -> dict[Path, Path]:
    """A style for each content; empty for generators that take none."""
    return dict(zip(contents, cycle(styles), strict=False)) if isinstance(generator, StyledGenerator) else {}


def readable(
    data: Data,
    domain: str,
    files: Sequence[Path],
    masks: Mapping[Path, Path],
    advice: str = "data.corrupt=skip goes on without such pictures",
) -> list[Path]:
    """The pictures of a domain that can be read, with their masks: known before hours go into them.

    Of others there is a warning where data.corrupt says skip, else an ImageError, with the advice.
    """
    transform, kept = PlainTransform(data, domain), []
    for path in tqdm(files, f"reading {domain}", unit="img", leave=False):
        try:
            transform.with_mask(path, masks.get(path))
            kept.append(path)
        except ImageError as error:
            if data.corrupt == "fail":
                raise ImageError(f"{error} ({advice})") from None
            tqdm.write(f"warning: left out: {error}")
    if files and not kept:
        raise ImageError(f"no readable picture among the {len(files)} of domain {domain}, such as {files[0]}")
    return kept


def config_of(run: Path, option: str = "--run") -> Config:
    """The run's own configuration; raises SplitError for what is no run's folder."""
    if not (run / "config.yaml").is_file():
        raise SplitError(f"{option}: {run} is no run's folder (no config.yaml in it)")
    try:
        return load_config(run / "config.yaml")
    except ConfigError as error:
        raise SplitError(f"{run / 'config.yaml'}, by another version perhaps: {error}") from None


def directions_of(
    config: Config, run: Path, split: str, wanted: str, device: torch.device | str, paired: bool | None = None
) -> Iterator[Direction]:
    """AtoB, BtoA or "both", as far as there are generators and pictures; `paired` as in `counterparts`."""
    domains = {d: folder for d in ("A", "B") if (folder := find_folder(config.data, split, d)) and folder.is_dir()}
    files = {d: paths for d, paths in find_split(config.data, split).items() if d in domains}
    names = ("AtoB", "BtoA") if wanted == "both" else (wanted,)
    chosen = [name for name in names if name[0] in files and _has(run, name)]
    if not chosen:
        raise SplitError(_why_none(run, split, names, domains))
    masks = {d: find_masks(config.data, d, paths, split) for d, paths in files.items()}
    advice = f"data.corrupt=skip in {run / 'config.yaml'} leaves such pictures out"
    sound = {d: readable(config.data, d, paths, masks[d], advice) for d, paths in files.items()}
    pairs = config.data.pairing == "paired" or config.data.side_by_side
    for name in chosen:
        source, target = name.split("to")
        back = f"{target}to{source}"
        pictures, others = sound[source], sound.get(target, [])
        said = True if paired is None and pairs and others else paired
        # Of all files: what is damaged makes the others no less pairs.
        truths, about = counterparts(files[source], domains[source], files.get(target, []), domains.get(target), said)
        known = {*pictures, *others}
        generator = load_generator(run, name, device)
        yield Direction(
            name,
            generator,
            load_generator(run, back, device) if _has(run, back) else None,
            domains[source],
            pictures,
            {path: truth for path, truth in truths.items() if {path, truth} <= known},
            about,
            run / split / name,
            pictures_of(config.data, source, pictures, domains[source]),
            pictures_of(config.data, target, others, domains.get(target)),
            PlainTransform(config.data, source),
            PlainTransform(config.data, target),
            masks[source],
            masks.get(target, {}),
            styles_in_turn(generator, pictures, others),
        )


def batches(
    files: Sequence[Path], read: Callable[[Path], Tensor], batch_size: int
) -> Iterator[tuple[list[Path], Tensor]]:
    """Runs of pictures that have one size, (n, c, h, w) in [-1, 1]."""
    paths, images = [], []
    for path in files:
        image = read(path)
        if images and (len(images) == batch_size or image.shape != images[0].shape):
            yield paths, torch.stack(images)
            paths, images = [], []
        paths.append(path)
        images.append(image)
    if images:
        yield paths, torch.stack(images)


def _why_none(run: Path, split: str, names: Sequence[str], found: Mapping[str, Path]) -> str:
    """One line for a run where none of the directions has both a generator and pictures."""
    made = [name for name in names if _has(run, name)]
    if not made:
        return f"{run}: no generator for {' or '.join(names)} ({names[0]}.safetensors); its training writes it"
    keys = " or ".join(f"data.{name[0]}.{split}" for name in made)
    have = ", ".join(f"{domain} in {folder}" for domain, folder in found.items()) or "none"
    return (
        f"{run}: no {split} pictures for {' or '.join(made)} (found {have}); "
        f"name their folder as {keys} in {run / 'config.yaml'}, or take another --split"
    )


def _has(run: Path, direction: str) -> bool:
    return (run / f"{direction}.safetensors").is_file()
