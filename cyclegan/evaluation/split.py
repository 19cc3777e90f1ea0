"""A run's test split: every picture translated, the truth compared where it is known, and a gallery of it all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cyclegan.config import Config, load_config
from cyclegan.data.folders import find_folder, find_split, subject
from cyclegan.data.transforms import PlainTransform, to_picture
from cyclegan.errors import UserError
from cyclegan.evaluation.card import save_card
from cyclegan.evaluation.evaluator import evaluate, higher_is_better, side_of
from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.features import Pictures
from cyclegan.evaluation.paired import mae, psnr, ssim
from cyclegan.evaluation.sides import pictures_of
from cyclegan.inference.gallery import Block, write_gallery
from cyclegan.inference.generator_file import load_generator
from cyclegan.inference.translate import translate_tensor

SHOWN = 200  # rows a direction in the gallery; all pictures are translated and scored
PAIRED = {"MAE": mae, "PSNR": psnr, "SSIM": ssim}


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
    out: Path
    inputs: Pictures
    references: Pictures  # real ones of the target domain
    read: Callable[[Path], Tensor]  # gives (C, H, W) in [-1, 1]
    read_truth: Callable[[Path], Tensor]

    def outputs(self) -> dict[Path, Path]:
        """Where each picture's translation goes: same sub-folder, same name, as PNG."""
        names = [path.relative_to(self.folder) for path in self.files]
        stems = Counter(name.with_suffix("") for name in names)
        # a.jpg beside a.png would become one file
        return {
            path: self.out / (name.with_suffix(".png") if stems[name.with_suffix("")] == 1 else f"{name}.png")
            for path, name in zip(self.files, names, strict=True)
        }


def translate_split(
    run: Path | str,
    split: str = "test",
    direction: str = "both",
    device: str = "cpu",
    batch_size: int = 8,
    metrics: Sequence[str] = (),
    extractor: Extractor | None = None,
) -> dict[str, dict]:
    """Translate a whole split and write pictures, scores.json and index.html below results/<run>/<split>/.

    Args:
        run: the run's folder
        split: "test" or "train"
        direction: "AtoB", "BtoA" or "both"
        device: for the generators
        batch_size: pictures of one size that go through a generator together
        metrics: distances to the target domain's pictures, by name as in `evaluate`: "fid", "kid" …
        extractor: whose features they take; needed with metrics

    Returns a dict by direction: "images" (how many), "folder", "scores" ({"MAE": {"untouched": x, "translated": y},
    …}: where pictures of the same name are counterparts MAE in [-1, 1], PSNR in dB, SSIM; and the distances), "table"
    (the same as lines of cells). Raises SplitError, ImageError, GeneratorFileError.
    """
    run = Path(run)
    config = _config_of(run)
    out = run / split
    out.mkdir(parents=True, exist_ok=True)
    results, blocks, side = {}, [], 0
    for way in _directions(config, run, split, direction, device):
        scores, block, side = _translate(way, batch_size, device)
        if metrics and way.references.files:
            scores |= _distances(way, metrics, extractor)
        block.table, block.note = score_table(scores), _note(way)
        blocks.append(block)
        results[way.name] = {"images": len(way.files), "folder": str(way.out), "scores": scores, "table": block.table}
        seen = way.generator.about["images"]
    write_gallery(out / "index.html", f"{config.name}: {split} split", f"after {seen} training images", blocks, side)
    (out / "scores.json").write_text(json.dumps(results, indent=1))
    return results


def score_table(scores: dict[str, dict[str, float]]) -> list[list[str]]:
    """Lines of cells: a heading, then a line a metric; nothing if there are no scores."""
    if not scores:
        return []
    lines = [["", "untouched", "translated", ""]]
    for metric, values in scores.items():
        higher = metric in ("PSNR", "SSIM") or higher_is_better(metric)
        better = "higher is better" if higher else "lower is better"
        lines.append([metric, f"{values['untouched']:.4g}", f"{values['translated']:.4g}", better])
    return lines


def _config_of(run: Path) -> Config:
    if not (run / "config.yaml").is_file():
        raise SplitError(f"--run: {run} is no run's folder (no config.yaml in it)")
    return load_config(run / "config.yaml")


def _directions(config: Config, run: Path, split: str, wanted: str, device: str) -> Iterator[Direction]:
    domains = {d: folder for d in ("A", "B") if (folder := find_folder(config.data, split, d)) and folder.is_dir()}
    files = {d: paths for d, paths in find_split(config.data, split).items() if d in domains}
    names = ("AtoB", "BtoA") if wanted == "both" else (wanted,)
    chosen = [name for name in names if name[0] in files and _has(run, name)]
    if not chosen:
        found = ", ".join(f"{d} in {folder}" for d, folder in domains.items()) or "no pictures"
        raise SplitError(f"{run}: nothing to translate {wanted} in the {split} split (found {found})")
    for name in chosen:
        source, target = name.split("to")
        back = f"{target}to{source}"
        yield Direction(
            name,
            load_generator(run, name, device),
            load_generator(run, back, device) if _has(run, back) else None,
            domains[source],
            files[source],
            _counterparts(files[source], domains[source], files.get(target, []), domains.get(target)),
            run / split / name,
            pictures_of(config.data, source, files[source]),
            pictures_of(config.data, target, files.get(target, [])),
            PlainTransform(config.data, source),
            PlainTransform(config.data, target),
        )


def _has(run: Path, direction: str) -> bool:
    return (run / f"{direction}.safetensors").is_file()


def _counterparts(files: list[Path], folder: Path, others: list[Path], other: Path | None) -> dict[Path, Path]:
    """The true picture of each file, by its name; none unless every file has one, lest names agree by chance."""
    by_name = {subject(path, other): path for path in others}
    names = {path: subject(path, folder) for path in files}
    if not all(name in by_name for name in names.values()):
        return {}
    return {path: by_name[name] for path, name in names.items()}


def _translate(way: Direction, batch_size: int, device: str) -> tuple[dict, Block, int]:
    columns = ["input", "output"] + ["back again"] * bool(way.back) + ["truth"] * bool(way.truths)
    block, shown = Block(way.name, columns), set(way.files[:: -(-len(way.files) // SHOWN)])
    values: dict[str, dict[str, list[Tensor]]] = {metric: {"untouched": [], "translated": []} for metric in PAIRED}
    outputs, side = way.outputs(), 0
    with tqdm(total=len(way.files), desc=way.name, unit="img", leave=False) as bar:
        for paths, images in _batches(way.files, way.read, batch_size):
            fakes = quantised(translate_tensor(way.generator, images.to(device)).cpu())
            backs = translate_tensor(way.back, fakes.to(device)).cpu() if way.back else None
            for i, path in enumerate(paths):
                _save(fakes[i], outputs[path])
                truth = _truth(way, path, images[i], fakes[i])
                if truth is not None:
                    _score(values, images[i], fakes[i], truth)
                if path in shown:
                    row = [images[i], fakes[i], backs[i] if way.back else None, truth]
                    row = [to_picture(image) for image in row if image is not None]
                    block.add(path.relative_to(way.folder).as_posix(), row)
                side = max(side, *images.shape[2:])
            bar.update(len(paths))
    means = {
        metric: {kind: float(torch.stack(numbers).mean()) for kind, numbers in kinds.items()}
        for metric, kinds in values.items()
        if all(kinds.values())
    }
    return means, block, side


def _batches(files: list[Path], read: Callable, batch_size: int) -> Iterator[tuple[list[Path], Tensor]]:
    """Runs of pictures that have one size."""
    paths, images = [], []
    for path in files:
        image = read(path)
        if images and (len(images) == batch_size or image.shape != images[0].shape):
            yield paths, torch.stack(images)
            paths, images = [], []
        paths.append(path)
        images.append(image)
    yield paths, torch.stack(images)


def _truth(way: Direction, path: Path, image: Tensor, fake: Tensor) -> Tensor | None:
    if path not in way.truths:
        return None
    truth = way.read_truth(way.truths[path])
    return truth if truth.shape == fake.shape == image.shape else None


def _score(values: dict, image: Tensor, fake: Tensor, truth: Tensor) -> None:
    for metric, function in PAIRED.items():
        if metric == "SSIM" and min(fake.shape[1:]) < 11:  # smaller than its window
            continue
        values[metric]["translated"].append(function(fake[None], truth[None])[0])
        values[metric]["untouched"].append(function(image[None], truth[None])[0])


def _distances(way: Direction, metrics: Sequence[str], extractor: Extractor) -> dict[str, dict[str, float]]:
    """Distances of both sides to the target domain; the card of the translated side is written beside the pictures."""
    real = side_of(way.references, extractor, metrics)
    before = evaluate(way.inputs, real, extractor, metrics)
    after = evaluate(
        list(way.outputs().values()), real, extractor, metrics, checkpoint=f"{way.generator.about['run']}/{way.name}"
    )
    save_card(way.out.with_name(f"{way.name}.card.json"), after.card)
    return {
        name: {"untouched": before.numbers[name], "translated": after.numbers[name]}
        for name in after.numbers
        if name in before.numbers
    }


def _note(way: Direction) -> str:
    shown = f", {SHOWN} of them shown" if len(way.files) > SHOWN else ""
    truth = "MAE, PSNR and SSIM are to the true counterpart." if way.truths else "No true counterparts are known."
    return f"{len(way.files)} pictures{shown}; the files are in {way.out.name}/. {truth}"


def quantised(images: Tensor) -> Tensor:
    """What is left of [-1, 1] in 8-bit files: scores are those of the files."""
    return images.add(1).mul(127.5).round().div(127.5).sub(1)


def _save(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_picture(image).save(path)
