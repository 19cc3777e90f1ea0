"""Scores of pictures that belong together by name: translations with their inputs, or with a known truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan.data.folders import distinct_names
from cyclegan.data.images import find_images, read_image, to_bytes, to_tensor, upright_size
from cyclegan.evaluation.content import change, edge_agreement, luminance_correlation
from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.painting import PaintingLosses
from cyclegan.evaluation.paired import mae, psnr, ssim
from cyclegan.evaluation.sifid import sifid
from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.losses.structure import WINDOW
from cyclegan.losses.style import Style
from cyclegan.networks.backbones import SMALLEST

Pair = tuple[Path, Path]
Score = Callable[[Tensor, Tensor], Tensor]  # two (1, 3, h, w) in [-1, 1] to (1,)

CONTENT: dict[str, Score] = {
    "change": change,
    "luminance_correlation": luminance_correlation,
    "edge_agreement": edge_agreement,
}
SIDES = {"ssim": WINDOW, "edge_agreement": 3}  # that pictures must have at least: others count for the rest only
TRUTH: dict[str, Score] = {"mae": mae, "psnr": psnr, "ssim": ssim}


def pairs_by_name(outputs: Path | str, partners: Path | str) -> list[Pair]:
    """Every picture of `outputs` with the one of the same name, whatever the suffix, in `partners`.

    Where partners differ in their suffix alone, a.jpg's output is a.jpg.png, as test.py and translate name it.
    """
    known = {name: path for path, name in distinct_names(find_images(partners), partners).items()}
    names = distinct_names(find_images(outputs), outputs)
    pairs = [(path, known.get(name)) for path, name in names.items()]
    alone = [path for path, partner in pairs if partner is None]
    if alone:
        raise EvaluationError(f"{partners} has no picture for {len(alone)} of {outputs}, such as {alone[0].name}")
    return pairs


def check_sizes(pairs: Sequence[Pair]) -> None:
    """Raises EvaluationError for a pair of different sizes, as their headers tell them."""
    for pair in pairs:
        sizes = [upright_size(path) for path in pair]
        if sizes[0] != sizes[1]:
            told = " and ".join(f"{width}x{height}" for width, height in sizes)
            raise EvaluationError(f"{pair[0]} and {pair[1]} must be of one size to be compared, not {told}")


def check_sides(pairs: Sequence[Pair]) -> None:
    """Raises EvaluationError for an output too small for content and style loss, as its header tells."""
    for output, _ in pairs:
        width, height = upright_size(output)
        if min(width, height) < SMALLEST:
            raise EvaluationError(
                f"{output}: content and style loss need sides of {SMALLEST} pixels, not {width}x{height}"
            )


def score_content(pairs: Sequence[Pair], lpips: Score | None = None) -> dict[str, float]:
    """Means over (output, input) files of what needs no network: is the content kept, was anything changed?

    An input of another size than its output is resized to it. Where it is given, LPIPS is `content_lpips`.
    """
    return _means(pairs, CONTENT | ({"content_lpips": lpips} if lpips else {}), _resized)


def art_product(numbers: dict[str, float], frechet: str) -> dict[str, float]:
    """(1 + LPIPS to the contents) * (1 + Fréchet distance to the styles), if both are among the numbers.

    Wright & Ommer (arXiv 2207.12280) call it ArtFID if the features are of their Inception, trained on paintings; with
    others, and with the FID's too, it is another number, so its name is that of the distance, `frechet`.
    """
    if not {"content_lpips", frechet} <= numbers.keys():
        return {}
    return {f"lpips_x_{frechet}": (1 + numbers["content_lpips"]) * (1 + numbers[frechet])}


def score_truth(pairs: Sequence[Pair], lpips: Score | None = None) -> dict[str, float]:
    """Means over (output, truth) files of MAE in [0, 2], PSNR in dB, SSIM and, where it is given, LPIPS."""
    return _means(pairs, TRUTH | ({"lpips": lpips} if lpips else {}), _of_one_size)


def score_painting(pairs: Sequence[Pair], styles: Sequence[Path], losses: PaintingLosses) -> dict[str, float]:
    """Means over (output, input) files of content loss, and of style loss to all styles together.

    As in `cyclegan stylize`, styles are seen at the output's longer side.
    """
    models: dict[int, dict[str, Style]] = {}
    values = []
    for pair in pairs:
        content, output = _resized(pair)
        longest = max(output.shape[2:])
        if longest not in models:
            models[longest] = losses.style(_scaled(path, longest) for path in styles)
        values.append(torch.stack(losses(output, content, models[longest])))
    kept, styled = torch.cat(values, 1).mean(1).tolist()
    return {f"content_loss_{losses.name}": kept, f"style_loss_{losses.name}": styled}


def score_sifid(pairs: Sequence[Pair], extractor: Extractor) -> dict[str, float]:
    """Mean SIFID over pairs of files; the extractor is an Inception at layer 64."""

    @torch.inference_mode()
    def score(x: Path, y: Path) -> Tensor:
        maps = extractor.network.maps(extractor.prepared([_picture(x), _picture(y)])).cpu()
        return sifid(maps[:1], maps[1:])

    name = "sifid" if extractor.is_fid else f"sifd_{extractor.name}"
    return {name: torch.cat([score(x, y) for x, y in pairs]).mean().item()}


def _means(pairs: Sequence[Pair], scores: dict[str, Score], fit: Callable[[Pair], list[Tensor]]) -> dict[str, float]:
    values = {name: [] for name in scores}
    for pair in pairs:
        x, y = fit(pair)
        for name, score in scores.items():
            if min(x.shape[2:]) >= SIDES.get(name, 1):
                values[name].append(score(x, y))
    return {name: torch.cat(parts).mean().item() for name, parts in values.items() if parts}


def _picture(path: Path) -> Tensor:
    """uint8 (3, h, w), upright and on white as its translation is; `read_rgb`, as distances want it, is not."""
    return to_bytes(to_tensor(read_image(path)))


def _resized(pair: Pair) -> list[Tensor]:
    output, source = (_picture(path)[None] for path in pair)
    return [_signed(_resize(source, output.shape[2:])), _signed(output)]


def _resize(picture: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 (1, 3, h, w) to that size, as torchvision's `resize` does: bilinear, antialiased, rounded."""
    if picture.shape[2:] == torch.Size(size):
        return picture
    scaled = F.interpolate(picture.float(), tuple(size), mode="bilinear", antialias=True)
    return scaled.round().to(torch.uint8)


def _scaled(path: Path, longest: int) -> Tensor:
    picture = _picture(path)[None]
    share = longest / max(picture.shape[2:])
    return _signed(_resize(picture, [max(SMALLEST, round(side * share)) for side in picture.shape[2:]]))


def _of_one_size(pair: Pair) -> list[Tensor]:
    check_sizes([pair])
    return [_signed(_picture(path)[None]) for path in pair]


def _signed(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1
