"""One HTML page with the pictures inside: no server, no network, no other files."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from PIL import Image

from cyclegan.whole_files import write_page

LARGEST = 256  # pixels of a side inside the page; the pictures themselves lie beside it
LOSSLESS = 128  # up to here losses would show, and cost little to avoid
METHOD = 2  # WebP's own choice, 4, takes two to ten times as long for 1% fewer bytes
TEMPLATE = Path(__file__).with_name("gallery.html")


@dataclass
class Block:
    """The pictures of one direction.

    Args:
        title: its heading
        columns: what stands beside one another in a row, for example input, output, truth
        table: lines of cells above the pictures, the first one their heading; empty for none
        note: a sentence below the table
    """

    title: str
    columns: list[str]
    table: list[list[str]] = field(default_factory=list)
    note: str = ""
    rows: list[str] = field(default_factory=list)

    def add(self, caption: str, pictures: list[Image.Image]) -> None:
        cells = "".join(f'<img src="{_embedded(picture)}" alt="" loading="lazy">' for picture in pictures)
        self.rows.append(f"<figure><div>{cells}</div><figcaption>{html.escape(caption)}</figcaption></figure>")


def write_gallery(path: Path, title: str, subtitle: str, blocks: list[Block], side: int) -> None:
    """Write the page atomically; `side` is that of the pictures in pixels, for how large to show them at first."""
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        sections="\n".join(_section(block) for block in blocks),
        columns=max(len(block.columns) for block in blocks),
        cell=96 if side <= 96 else min(side, 200),
        rendering="image-rendering: pixelated" if side <= 64 else "",
    )
    write_page(path, page)


def _section(block: Block) -> str:
    head = "".join(f"<span>{html.escape(name)}</span>" for name in block.columns)
    return (
        f"<h2>{html.escape(block.title)}</h2>{_table(block.table)}<p>{html.escape(block.note)}</p>"
        f'<figure class="head"><div>{head}</div></figure><div class="rows">{"".join(block.rows)}</div>'
    )


def _table(lines: list[list[str]]) -> str:
    if not lines:
        return ""
    head, *body = [["<th>" + "</th><th>".join(map(html.escape, line)) + "</th>"] for line in lines]
    body = "".join(f"<tr>{line[0]}</tr>" for line in body)
    return f"<table><thead><tr>{head[0]}</tr></thead>{body}</table>"


def _embedded(picture: Image.Image) -> str:
    picture = picture.convert("RGB")
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    lossless = max(picture.size) <= LOSSLESS
    picture.save(buffer, format="WEBP", quality=88, lossless=lossless, method=METHOD)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
