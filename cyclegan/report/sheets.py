"""Sample sheets as frames of a slider: small enough to lie in one file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MOST_FRAMES = 40
MOST_BYTES = 12 * 2**20  # of all frames: a page of this size still opens on a phone
LONGEST_SIDE = 1600


@dataclass(frozen=True)
class Frame:
    """One sheet: after how many images, and its WebP file."""

    images: int
    width: int
    height: int
    webp: bytes

    @property
    def address(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(self.webp).decode()}"


def read_frames(paths: list[Path], most_bytes: int = MOST_BYTES) -> list[Frame]:
    """Evenly thinned out, first and last kept; more so if they are too large."""
    frames = [frame for path in thinned(paths, MOST_FRAMES) if (frame := _read_frame(path))]
    while len(frames) > 2 and sum(len(frame.webp) for frame in frames) > most_bytes:
        frames = thinned(frames, max(2, len(frames) // 2))
    return frames


def thinned(items: list, most: int) -> list:
    """At most so many, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _read_frame(path: Path) -> Frame | None:
    buffer = io.BytesIO()
    try:
        with Image.open(path) as picture:
            sheet = picture.convert("RGB")
    except OSError:  # a damaged file, or one that was deleted meanwhile
        return None
    sheet.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    sheet.save(buffer, "WEBP", quality=80)
    return Frame(int(path.stem), sheet.width, sheet.height, buffer.getvalue())
