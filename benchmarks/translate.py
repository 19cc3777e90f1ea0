"""Speed of folders, deviations and speed of export formats, memory of tiles: `python benchmarks/translate.py PART`.

Prints a table and writes benchmarks/translate-PART.json. The weights are random: none of the numbers depends on them,
except deviations, for which --source takes a trained generator. Export formats run on the CPU whatever --device says.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import about, peak_memory
from PIL import Image
from torch import nn

from cyclegan import load_generator
from cyclegan.devices import default_device
from cyclegan.heap import keep_freed_memory
from cyclegan.inference.checkpoints.generator_file import save_generator
from cyclegan.inference.deployment.export import SUFFIXES, Options, export, open_exported, verify
from cyclegan.inference.files import translate_files
from cyclegan.inference.tiling.tiles import Tiling, translate_tiled
from cyclegan.inference.translate import translate_tensor
from cyclegan.inference.translator import Translator
from cyclegan.inference.work_list import plan
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "tile"])
    parser.add_argument("--source", help="a trained generator; else a ResNet of 9 blocks with random weights")
    parser.add_argument("--width", type=int, default=64, help="of the random one (%(default)s)")
    parser.add_argument("--blocks", type=int, default=9, help="of the random one (%(default)s)")
    parser.add_argument("--count", type=int, default=24, help="folder: pictures of 256x256 (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of which the best counts (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096, 8192, 16384], help="tiles, files: pixels")
    parser.add_argument("--mode", choices=["exact", "thumbnail", "never"], default="exact", help="tiles, files")
    parser.add_argument("--format", choices=["png", "tif", "jpg"], default="png", help="files (%(default)s)")
    parser.add_argument("--device", default=default_device(), help="%(default)s")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the command does; a plain loop beside it gains as well
    if options.part == "tile":
        print(json.dumps(_tile(options)))
        return
    rows = PARTS[options.part](options)
    where = about(options.threads, "cpu" if options.part == "formats" else options.device)
    print(where["machine"])
    for row in rows:
        print(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )
    Path(__file__).with_name(f"translate-{options.part}.json").write_text(json.dumps({**where, "rows": rows}, indent=1))


def _generator(options: argparse.Namespace) -> nn.Module:
    if options.source:
        return load_generator(options.source)
    torch.manual_seed(0)
    architecture = {"name": "resnet", "width": options.width, "blocks": options.blocks}
    generator = initialize(build_generator(architecture)).eval().requires_grad_(False)
    generator.about = {"direction": "AtoB", "input": {"channels": 3}, "output": {"channels": 3}}
    return generator


def folder(options: argparse.Namespace) -> list[dict]:
    """Images a second of a plain loop and of translate, taken in turns."""
    generator = _generator(options)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "in"
        _pictures(source, options.count)
        plain = copy.deepcopy(generator).to(options.device)
        ways: dict[str, Callable[[Path], None]] = {
            "plain loop fp32": lambda out: _plain_loop(plain, source, out, options.device)
        }
        for precision in ("fp32", "bf16"):
            translator = Translator(generator, options.device, precision)
            ways[f"translate {precision}"] = lambda out, translator=translator: _translate(translator, source, out)
        best = _in_turns(ways, options.repeats, Path(name))
    first = best["plain loop fp32"]
    return [
        {
            "way": way,
            "images/s": options.count / seconds,
            "ratio": first[0] / seconds,
            "CPU seconds an image": cpu / options.count,
            "CPU ratio": first[1] / cpu,
        }
        for way, (seconds, cpu) in best.items()
    ]


def _in_turns(ways: dict[str, Callable[[Path], None]], repeats: int, out: Path) -> dict[str, tuple[float, float]]:
    """The best wall-clock and processor seconds of each; the latter are fair on a machine that is not quiet."""
    best = dict.fromkeys(ways, (float("inf"), float("inf")))
    for turn in range(repeats):
        for way, run in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(out / f"{way} {turn}")
            took = (time.perf_counter() - wall, time.process_time() - cpu)
            best[way] = tuple(map(min, best[way], took))
    return best


def _pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{i:03}.png")


@torch.no_grad()
def _plain_loop(generator: nn.Module, source: Path, out: Path, device: str) -> None:
    out.mkdir()
    for path in sorted(source.iterdir()):
        pixels = np.array(Image.open(path).convert("RGB"))
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()[None].float() / 127.5 - 1
        result = ((generator(image.to(device))[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        Image.fromarray(result).save(out / path.name)


def _translate(translator: Translator, source: Path, out: Path) -> None:
    report = translate_files([translator], plan([source], out))
    assert not report.failed


def formats(options: argparse.Namespace) -> list[dict]:
    """Largest deviation from eager float32 and milliseconds an image (256x256, one at a time)."""
    generator, rows = _generator(options), []
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    calibration = Path(__file__).parents[1] / "datasets" / "flat2fluent3d" / "testB"
    kinds = [("pt2", "fp32"), ("onnx", "fp32"), ("torchscript", "fp32"), ("safetensors", "fp32"), ("pt2", "bf16")]
    kinds += [("onnx", "fp16"), ("onnx", "int8")]
    with tempfile.TemporaryDirectory() as name:
        runs = {("eager", "fp32"): lambda given: translate_tensor(generator, given)}
        for format, precision in kinds:
            path = Path(name) / f"{format}-{precision}{SUFFIXES[format]}"
            some = Path(name) / "calibration"
            if precision == "int8":
                some.mkdir()
                for picture in sorted(calibration.glob("*.png"))[:8]:
                    (some / picture.name).symlink_to(picture)
            export(generator, path, format, Options(precision, format != "safetensors", calibration=some))
            deviations = verify(generator, path)
            rows.append({"format": format, "precision": precision, "MB": path.stat().st_size / 1e6})
            rows[-1] |= {f"{d.batch}x{d.height}x{d.width}": d.largest for d in deviations}
            rows[-1]["mean"] = max(d.mean for d in deviations)
            runs[format, precision] = open_exported(path)
        with torch.no_grad():
            calls = {kind: lambda _, run=run: run(image) for kind, run in runs.items()}
            best = _in_turns(calls, options.repeats + 1, Path(name))
    rows.insert(0, {"format": "eager", "precision": "fp32"})
    for row in rows:
        wall, cpu = best[row["format"], row["precision"]]
        row |= {"ms": wall * 1000, "CPU ms": cpu * 1000}
    return rows


def tiles(options: argparse.Namespace) -> list[dict]:
    """Peak memory and time by side; every picture in a process of its own, on the disk at both ends."""
    keep = ["--width", str(options.width), "--blocks", str(options.blocks), "--threads", str(options.threads)]
    keep += ["--device", options.device]
    rows = []
    for side in options.sides:
        command = [sys.executable, __file__, "tile", "--sides", str(side), "--mode", options.mode, *keep]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _tile(options: argparse.Namespace) -> dict:
    generator, (side,) = Translator(_generator(options), options.device, "fp32").exact, options.sides
    with tempfile.TemporaryDirectory() as name:
        pixels, out = (np.memmap(Path(name) / way, np.uint8, "w+", shape=(side, side, 3)) for way in ("in", "out"))
        band = np.random.default_rng(0).integers(0, 256, (64, side, 3), dtype=np.uint8)
        for top in range(0, side, 64):
            pixels[top : top + 64] = band // (1 + 3 * top // side)
        before = _bytes()
        with _Peak() as peak:
            began = time.perf_counter()
            if options.mode == "never":
                image = torch.from_numpy(np.array(pixels)).to(options.device).permute(2, 0, 1)[None] / 127.5 - 1
                translate_tensor(generator, image).cpu()
            else:
                translate_tiled(generator, pixels, Tiling(options.mode), torch.device(options.device), out)
            seconds = time.perf_counter() - began
    row = {"side": side, "mode": options.mode, "MiB": (peak.most - before) / 2**20, "seconds": seconds}
    return row | ({"GPU MiB": peak_memory(options.device)} if options.device.startswith("cuda") else {})


def _bytes(kind: str = "RssAnon", process: int | str = "self") -> int:
    """Memory of a process, 0 once it has ended.

    RssAnon: what belongs to it alone, without the pages of mapped files; VmHWM: the most that was in memory, with them
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


class _Peak:
    """The most memory held inside the block, looked at a hundred times a second."""

    def __enter__(self) -> _Peak:
        self.most, self.over = _bytes(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.01):
            self.most = max(self.most, _bytes())

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def files(options: argparse.Namespace) -> list[dict]:
    """Peak memory and time of `cyclegan translate` on one PNG by side, beyond what it takes for a tiny one."""
    rows, tiny = [], None
    with tempfile.TemporaryDirectory() as name:
        generator = _generator(options)
        source = Path(name) / "AtoB.safetensors"
        save_generator(source, generator, generator.about)
        for side in (64, *options.sides):
            coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
            given, result = (Path(name) / way / f"{side}.{options.format}" for way in ("in", "out"))
            given.parent.mkdir(exist_ok=True), result.parent.mkdir(exist_ok=True)
            fast = {"compress_level": 1} if options.format == "png" else {}
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(given, **fast)
            arguments = [source, given, "-o", result, "--tiles", options.mode]
            arguments += ["--tile-above", "65536", "--max-pixels", "0", "--device", options.device]
            began = time.perf_counter()
            peaks = _peaks_of(["-m", "cyclegan", "translate", *map(str, arguments), "--precision", "fp32"], options)
            tiny = tiny or peaks
            row = {"side": side, "mode": options.mode, "format": options.format, "seconds": time.perf_counter() - began}
            for kind in peaks:
                row |= {f"{kind} MiB": peaks[kind] / 2**20, f"{kind} beyond": (peaks[kind] - tiny[kind]) / 2**20}
            rows.append(row | {"MiB of input and result": 6 * side**2 / 2**20})
            print(rows[-1], file=sys.stderr, flush=True)
            given.unlink(), result.unlink()
    return rows


def _peaks_of(arguments: list[str], options: argparse.Namespace) -> dict[str, int]:
    """The most bytes of a Python process: its own pages, and all in memory, those of mapped files included."""
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    process = subprocess.Popen([sys.executable, *arguments], env=os.environ | threads)
    peaks = {"own": 0, "resident": 0}  # rusage's would begin with what this process holds
    while process.poll() is None:
        for name, kind in (("own", "RssAnon"), ("resident", "VmHWM")):
            peaks[name] = max(peaks[name], _bytes(kind, process.pid))
        time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return peaks


PARTS = {"folder": folder, "formats": formats, "tiles": tiles, "files": files}

if __name__ == "__main__":
    main()
