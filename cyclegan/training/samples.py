"""A sheet of the same test pictures every time: real, translated, brought back, and the identity."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from cyclegan.config import Config
from cyclegan.data.folders import find_split
from cyclegan.data.transforms import PlainTransform, to_picture
from cyclegan.whole_files import open_replacing

CELL = 128  # smaller pictures are enlarged to about this many pixels


def sample_images(config: Config) -> dict[str, Tensor]:
    """Evenly spaced test pictures (training ones if there is no test split) by domain: (N, C, H, W) in [-1, 1]."""
    crop = config.data.crop_size
    size = (crop, crop) if isinstance(crop, int) else tuple(crop)
    files = {**find_split(config.data, "train"), **find_split(config.data, "test")}
    images = {}
    for domain, paths in files.items():
        count = min(config.logging.samples, len(paths))
        chosen = [paths[i * len(paths) // count] for i in range(count)]
        transform = PlainTransform(config.data, domain, size)
        images[domain] = torch.stack([transform(path) for path in chosen])
    return images


@torch.no_grad()
def translate_samples(generators: dict[str, nn.Module], images: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """By direction: the pictures and their translations."""
    return {
        direction: (images[direction[0]], one_by_one(generator, images[direction[0]]))
        for direction, generator in generators.items()
    }


@torch.no_grad()
def sample_sheet(generators: dict[str, nn.Module], pictures: dict[str, tuple[Tensor, Tensor]]) -> Image.Image:
    """One row a picture, a block of columns a direction."""
    columns = []
    for direction, (real, fake) in pictures.items():
        source, target = direction.split("to")
        columns += [(f"real {source}", real), (f"fake {target}", fake)]
        back = generators.get(f"{target}to{source}")
        if back is not None:
            columns.append((f"back to {source}", one_by_one(back, fake)))
            if real.shape[1] == fake.shape[1]:
                columns.append((f"identity {source}", one_by_one(back, real)))
    return draw_sheet(columns)


def one_by_one(generator: nn.Module, images: Tensor) -> Tensor:
    """Translate in batches of one: a sheet takes no more memory than training does."""
    return torch.cat([generator(image[None])[..., : images.shape[2], : images.shape[3]] for image in images])


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
