"""Ways to a painted picture side by side: neural style, and runs that were trained, on the same contents and style.

    python benchmarks/styles.py --contents photos --style painting.jpg --weights vgg16.pth \
        --runs results/fast_style results/adain results/cyclegan --out results/styles

Each way works in a process of its own. Told are seconds a picture (after one to warm up, but for neural style), the
process' peak memory, and what neural style minimises: content and style loss on the usual layers of VGG-16 with the
Gram kernel, relative to an empty picture. Writes styles.md, styles.json and sheet.png.
`--memory 512 1024 2048` measures neural style at those sizes instead and writes memory.md and memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from machine import about, peak_memory
from torch import Tensor

from cyclegan import load_generator, stylize
from cyclegan.data.images import find_images, read_image, to_tensor
from cyclegan.data.transforms import resized, to_picture
from cyclegan.evaluation.painting import PaintingLosses
from cyclegan.inference.translate import translate_tensor
from cyclegan.neural_style import Recipe
from cyclegan.training.journal import read_metrics
from cyclegan.training.samples import draw_sheet

NEURAL = "neural style"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contents", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--style", type=Path, required=True, help="a picture")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of runs from contents to styles")
    parser.add_argument("--direction", default="AtoB", help="of those runs (%(default)s)")
    parser.add_argument("--weights", type=Path, help="torchvision's file of vgg16, where it is not found by itself")
    parser.add_argument("--size", type=int, default=256, help="pixels of the longer side (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="of neural style (%(default)s)")
    parser.add_argument("--tv", type=float, default=1.0, help="of neural style (%(default)s)")
    parser.add_argument("--memory", type=int, nargs="+", help="sizes at which neural style alone is measured")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/styles"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.child:
        print(json.dumps(_paint(options.child, options)))
    elif options.memory:
        rows = [
            _measured(NEURAL, options, "--size", str(size), "--steps", "2") | {"size": size} for size in options.memory
        ]
        lines = ["| longer side | peak MiB of the process | seconds a step |", "|---|---|---|"]
        lines += [f"| {row['size']} | {row['MiB']:.0f} | {row['seconds'] / 2:.2g} |" for row in rows]
        _write(options.out / "memory", {"threads": options.threads, "rows": rows}, lines)
    else:
        _compare(options)


def _compare(options: argparse.Namespace) -> None:
    losses = PaintingLosses("vgg16", options.weights)
    contents, style = _contents(options), _picture(options.style, options.size)
    wanted = losses.style([style])
    rows, columns = [], [("content", contents), ("style", style.expand(len(contents), -1, -1, -1))]
    rows.append({"way": "untouched"})
    painted = {"untouched": contents}
    for way in (NEURAL, *map(str, options.runs)):
        rows.append({"way": Path(way).name, **_measured(way, options)})
        painted[Path(way).name] = torch.stack([_picture(path, options.size)[0] for path in _outputs(way, options)])
    for row in rows:
        pairs = zip(painted[row["way"]].split(1), contents.split(1), strict=True)
        kept, styled = zip(*(losses(result, content, wanted) for result, content in pairs), strict=True)
        row |= {"content loss": float(torch.cat(kept).mean()), "style loss": float(torch.cat(styled).mean())}
    columns += [(way, images) for way, images in painted.items() if way != "untouched"]
    head = [
        "",
        "trained, minutes",
        "trained on, pictures",
        "seconds a picture",
        "peak MiB",
        "content loss",
        "style loss",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row["way"], *(_cell(row.get(key)) for key in ("minutes", "images", "seconds", "MiB"))]
        lines.append(f"| {' | '.join([*cells, _cell(row['content loss']), _cell(row['style loss'])])} |")
    _write(options.out / "styles", {"threads": options.threads, "size": options.size, "rows": rows}, lines)
    draw_sheet(columns).save(options.out / "sheet.png")


def _measured(way: str, options: argparse.Namespace, *others: str) -> dict:
    given = {"--contents": options.contents, "--style": options.style, "--out": options.out, "--size": options.size}
    given |= {
        "--direction": options.direction,
        "--steps": options.steps,
        "--tv": options.tv,
        "--threads": options.threads,
    }
    given |= {"--weights": options.weights} if options.weights else {}
    command = [sys.executable, __file__, *(str(part) for pair in given.items() for part in pair), *others]
    print(f"{way} ...", file=sys.stderr, flush=True)
    done = subprocess.run([*command, "--child", way], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1])


@torch.no_grad()
def _paint(way: str, options: argparse.Namespace) -> dict:
    """In a process of its own: every content, its time and the memory; the pictures are left in OUT."""
    contents, style, about = _contents(options).split(1), _picture(options.style, options.size), {}
    if way == NEURAL:
        recipe = Recipe(backbone="vgg16", weights=options.weights, steps=options.steps, tv=options.tv)
        backbone = recipe.load_backbone()
        contents = contents[:1] if options.steps < 10 else contents

        def paint(content: Tensor) -> Tensor:
            with torch.enable_grad():
                return stylize(content, style, recipe, backbone)
    else:
        generator, about = load_generator(way, options.direction), _training(Path(way) / "log" / "metrics.jsonl")
        if hasattr(generator, "take_style"):
            generator.take_style([style])

        def paint(content: Tensor) -> Tensor:
            return translate_tensor(generator, content)

        paint(contents[0])
    seconds = []
    for content, path in zip(contents, _outputs(way, options), strict=False):
        began = time.perf_counter()
        result = paint(content)
        seconds.append(time.perf_counter() - began)
        path.parent.mkdir(parents=True, exist_ok=True)
        to_picture(result[0]).save(path)
    return {**about, "seconds": sum(seconds) / len(seconds), "MiB": peak_memory(torch.device("cpu"))}


def _training(metrics: Path) -> dict[str, float]:
    """How long a run has trained, and on how many pictures."""
    lines = read_metrics(metrics)
    places = [0, *(line["images"] for line in lines)]
    parts = zip(places, places[1:], (line["speed/images_per_second"] for line in lines), strict=False)
    return {"images": places[-1], "minutes": sum((after - before) / speed for before, after, speed in parts) / 60}


def _outputs(way: str, options: argparse.Namespace) -> list[Path]:
    folder = options.out / "painted" / Path(way).name
    return [folder / f"{path.stem}.png" for path in find_images(options.contents)]


def _contents(options: argparse.Namespace) -> Tensor:
    pictures = [_picture(path, options.size) for path in find_images(options.contents)]
    if len({picture.shape for picture in pictures}) > 1:
        sys.exit(f"{options.contents}: the sheet wants pictures of one shape")
    return torch.cat(pictures)


def _picture(path: Path, longest: int) -> Tensor:
    """(1, 3, h, w) in [-1, 1], its longer side as given."""
    pixels = read_image(path)
    share = longest / max(pixels.shape[:2])
    return to_tensor(resized(pixels, lambda *sides: tuple(max(1, round(side * share)) for side in sides)))[None]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _write(path: Path, results: dict, lines: list[str]) -> None:
    path.with_suffix(".json").write_text(json.dumps({**about(results["threads"]), **results}, indent=1) + "\n")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
