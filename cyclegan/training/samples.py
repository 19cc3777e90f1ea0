"""A sheet of the same test pictures every time: real, the style if one is taken, translated, back, and the identity."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from tqdm import tqdm

from cyclegan.config import Config
from cyclegan.data.folders import find_split
from cyclegan.data.images import ImageError
from cyclegan.data.masks import find_masks
from cyclegan.data.transforms import PlainTransform, to_picture
from cyclegan.losses import within
from cyclegan.networks.styled import StyledGenerator
from cyclegan.whole_files import open_replacing

CELL = 128  # smaller pictures are enlarged to about this many pixels


def sample_images(config: Config) -> dict[str, Tensor]:
    """Evenly spaced test pictures (training ones if there is no test split) by domain: (N, C, H, W) in [-1, 1].

    Where they have masks, those too: "A_mask", (N, 1, H, W) in [0, 1].
    """
    crop = config.data.crop_size
    size = (crop, crop) if isinstance(crop, int) else tuple(crop)
    splits = {split: find_split(config.data, split) for split in ("train", "test")}
    images = {}
    for domain in splits["train"]:
        split = "test" if domain in splits["test"] else "train"
        paths = splits[split][domain]
        masks = find_masks(config.data, domain, paths, split)
        count = min(config.logging.samples, len(paths))
        transform = PlainTransform(config.data, domain, size)
        skip = config.data.corrupt == "skip"
        found = [_readable(transform, paths, i * len(paths) // count, masks, skip) for i in range(count)]
        pictures, shapes = zip(*found, strict=True)
        images[domain] = torch.stack(pictures)
        if masks:
            images[f"{domain}_mask"] = torch.stack(shapes)
    return images


def _readable(
    transform: PlainTransform, paths: list[Path], place: int, masks: dict[Path, Path], skip: bool
) -> tuple[Tensor, Tensor | None]:
    """The picture at a place, or, if damaged ones are to be skipped, the next sound one. Raises ImageError."""
    for step in range(len(paths)):
        path = paths[(place + step) % len(paths)]
        try:
            return transform.with_mask(path, masks.get(path))
        except ImageError as error:
            if not skip:
                raise ImageError(
                    f"{error} (it was to be shown while training; data.corrupt=skip shows another)"
                ) from None
            tqdm.write(f"warning: not on the sample sheet: {error}")
    raise ImageError(f"no readable picture among {len(paths)}, such as {paths[place]}")


@torch.no_grad()
def translate_samples(generators: dict[str, nn.Module], images: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """By direction: the pictures and their translations, as they were outside their masks."""
    pictures = {}
    for direction, generator in generators.items():
        real, mask = images[direction[0]], images.get(f"{direction[0]}_mask")
        styles = sample_styles(generator, direction, images)
        pictures[direction] = real, within(mask, one_by_one(generator, real, styles), real)
    return pictures


def sample_styles(generator: nn.Module, direction: str, images: dict[str, Tensor]) -> Tensor | None:
    """For each content a picture of the target domain, in turn; None for generators that take no style."""
    real, target = images[direction[0]], images[direction[-1]]
    if not isinstance(generator, StyledGenerator):
        return None
    return target[torch.arange(len(real), device=target.device) % len(target)]


@torch.no_grad()
def sample_sheet(
    generators: dict[str, nn.Module], pictures: dict[str, tuple[Tensor, Tensor]], images: dict[str, Tensor]
) -> Image.Image:
    """One row a picture, a block of columns a direction; `images` as `sample_images` gives them."""
    columns = []
    for direction, (real, fake) in pictures.items():
        source, target = direction.split("to")
        mask = images.get(f"{source}_mask")
        styles = sample_styles(generators[direction], direction, images)
        columns += [(f"real {source}", real)] + ([] if styles is None else [(f"style {target}", styles)])
        columns += [(f"fake {target}", fake)]
        back = generators.get(f"{target}to{source}")
        if back is not None:
            columns.append((f"back to {source}", within(mask, one_by_one(back, fake), real)))
            if real.shape[1] == fake.shape[1]:
                columns.append((f"identity {source}", within(mask, one_by_one(back, real), real)))
    return draw_sheet(columns)


def one_by_one(generator: nn.Module, images: Tensor, styles: Tensor | None = None) -> Tensor:
    """Translate in batches of one: a sheet takes no more memory than training does."""
    inputs = zip(images.split(1), *([] if styles is None else [styles.split(1)]), strict=True)
    return torch.cat([generator(*one)[..., : images.shape[2], : images.shape[3]] for one in inputs])


def draw_sheet(columns: list[tuple[str, Tensor]]) -> Image.Image:
    """Named columns of (N, C, H, W) pictures in [-1, 1] beside one another, a caption over each."""
    height, width = columns[0][1].shape[2:]
    zoom = max(1, CELL // max(height, width))
    cell_h, cell_w, gap, head = height * zoom, width * zoom, 4, 20
    rows = max(len(images) for _, images in columns)
    sheet = Image.new("RGB", (len(columns) * (cell_w + gap) + gap, rows * (cell_h + gap) + head + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, (caption, images) in enumerate(columns):
        left = gap + column * (cell_w + gap)
        draw.text((left + cell_w // 2, head // 2), caption, fill="black", font=font, anchor="mm")
        for row, image in enumerate(images):
            cell = to_picture(image).convert("RGB").resize((cell_w, cell_h), Image.Resampling.NEAREST)
            sheet.paste(cell, (left, head + row * (cell_h + gap)))
    return sheet


def save_atomically(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_replacing(path) as file:
        picture.save(file, format="PNG")


def drop_after(files: Iterable[Path], images: int) -> None:
    """Of sheets or cards, named by the images seen, those of weights that a run has left to resume from an earlier
    state: what it does not make again would stay."""
    for file in files:
        seen = file.stem.partition("_")[0]
        if seen.isdigit() and int(seen) > images:
            file.unlink()
