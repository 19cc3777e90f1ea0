"""Translating files: reading, computing and writing side by side, and going on where an earlier call stopped."""

from __future__ import annotations

import json
import os
import queue
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from cyclegan.data.images import ImageError
from cyclegan.data.masks import read_mask
from cyclegan.devices import default_device
from cyclegan.errors import reason_of
from cyclegan.inference.deployment.exported import open_generator
from cyclegan.inference.large_files import translate_large
from cyclegan.inference.picture_files import (
    FORMATS,
    LOSSY_FORMATS,
    Picture,
    count_pixels,
    pasted,
    picture_of,
    pixel_limit,
    read_picture,
    to_pillow,
    with_bits,
    write_picture,
)
from cyclegan.inference.styling import Colours, StylePicture, several, styled
from cyclegan.inference.tiling.tiles import Tiling
from cyclegan.inference.translator import Precision, Translator
from cyclegan.inference.work_list import Job, WorkListError, keep_apart, plan, with_regions
from cyclegan.whole_files import open_replacing

MARK = ".translated.json"  # in a folder of results: by which generator they were made
PIXELS = 250_000_000  # the largest picture that is read without asking


@dataclass
class Report:
    """What became of the files."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)  # finished by an earlier call, or a named file that was there
    failed: dict[Path, str] = field(default_factory=dict)  # source: reason


def translate(
    source: nn.Module | str | Path,
    pictures: Any,
    output: str | Path | None = None,
    *,
    direction: str | None = None,
    style: StylePicture | Sequence[StylePicture] = (),
    style_weights: Sequence[float] | None = None,
    strength: float | None = None,
    keep_colours: Colours | None = None,
    regions: str | Path | Sequence[str | Path] = (),
    device: str | Sequence[str] | None = None,
    precision: Precision = "auto",
    batch: int | None = None,
    format: str | None = None,
    tiling: Tiling | None = None,
    max_pixels: int | None = PIXELS,
    overwrite: bool = False,
) -> Any:
    """Translate pictures in memory, files or folders; every picture keeps its size.

    Args:
        source: a generator, what `load_generator` takes, or a graph that `export` wrote (.pt2, .onnx, .ts)
        pictures: a PIL image, an array (height, width[, 1 or 3]) of uint8, uint16 or floats in [0, 1], or a list of
            those; or a path to a picture, to a folder, a pattern, or a list of paths
        output: for paths: the folder (or, for one picture, the file) to write into
        direction: "AtoB" or "BtoA", where `source` has both
        style, style_weights, strength: of generators of content and style, see `take_style`; without, what is kept
        keep_colours: histogram or luminance, see `Styling`
        regions: for each style, a mask that is white where it goes, or a folder of masks named like the pictures
        device: e.g. "cuda", or several, which share the files; the GPU if there is one
        precision: auto, fp32, bf16 or fp16, see `Translator`
        batch: pictures of the same size that are computed together; 1 on CPUs, else 8
        format: of written files: png, jpg, webp, tif … or keep; None: a named file's own, png in a folder
        tiling: how large pictures are cut
        max_pixels: larger files are refused before they are decoded; None takes all
        overwrite: translate again what an earlier call has finished, and replace a named file that is there

    Returns the same kind as it was given for pictures in memory, a PIL image for one path without `output`, and a
    Report for paths with `output`. Raises ImageError for a bad picture in memory or without `output`.
    """
    regions = [regions] if isinstance(regions, str | Path) else list(regions)
    generator = source if isinstance(source, nn.Module) else open_generator(source, direction)
    devices = [device] if isinstance(device, str) else list(device or [default_device()])
    with pixel_limit(max_pixels):
        generator, styling = styled(generator, style, style_weights, strength, keep_colours, regions)
        translators = [Translator(generator, one, precision, tiling, styling) for one in devices]
        if output is not None:
            paths = [pictures] if isinstance(pictures, str | Path | Image.Image) else list(pictures)
            if held := [type(one).__name__ for one in paths if not isinstance(one, str | Path)]:
                raise WorkListError(f"output is for paths; of pictures in memory ({held[0]}) the results are returned")
            jobs = with_regions(plan(paths, output, format), regions)
            read = [Path(one) for one in (*several(style), *regions) if isinstance(one, str | Path)]
            keep_apart((job.target for job in jobs), read)
            return translate_files(translators, jobs, batch=batch, overwrite=overwrite)
        if isinstance(pictures, list | tuple):
            return [_in_memory(translators[0], picture, regions) for picture in pictures]
        return _in_memory(translators[0], pictures, regions)


def _in_memory(translator: Translator, given: Any, regions: Sequence[str | Path]) -> Image.Image | np.ndarray:
    if isinstance(given, str | Path):
        if Path(given).is_dir():
            raise ImageError(f"{given} is a folder; name an output folder for its translations")
        (job,) = with_regions([Job(Path(given), Path(given))], regions)
        picture = read_picture(given, translator.channels, translator.background)
        return to_pillow(translator([picture], [job.regions])[0])
    (result,) = translator([picture_of(given, translator.channels, translator.background)], [regions])
    if isinstance(given, Image.Image):
        return to_pillow(result)
    if given.dtype == np.uint16:
        return with_bits(result.pixels, 16)
    return result.pixels if result.pixels.dtype != np.uint16 else result.pixels.astype(np.float32) / 65535


def translate_files(
    translators: Sequence[Translator],
    jobs: Sequence[Job],
    *,
    batch: int | None = None,
    quality: int = 95,
    overwrite: bool = False,
    threads: int | None = None,
    progress: bool = False,
) -> Report:
    """Translate all jobs; a file that cannot be read or written is noted and the rest goes on.

    Args:
        translators: one a device; they share the work
        jobs: from `plan`
        batch: pictures of one size that are computed together
        quality: of JPEG and WebP, 1 to 100
        overwrite: do what is already done, and replace what is there
        threads: that read and write files
        progress: show a bar

    Raises WorkListError if the output folder holds the results of another generator, or pictures of the same names that
    no generator is known to have made.
    """
    report = Report()
    marks = _mark_folders(translators[0].exact, jobs, quality, overwrite)
    todo = []
    for job in jobs:
        # Of a file that was named nothing tells whose it is.
        there = job.target.exists() if job.below is None else job.done(marks[job.below])
        if there and not overwrite:
            report.skipped.append(job.target)
        else:
            todo.append(job)
    batch = batch or (1 if translators[0].device.type == "cpu" else 8)
    threads = threads or min(8, os.cpu_count() or 1)
    with tqdm(total=len(todo), unit="img", disable=not progress) as bar:
        for job, problem in _Pipeline(translators, batch, quality, threads).run(todo):
            bar.update()
            if problem is None:
                report.done.append(job.target)
            else:
                report.failed[job.source] = problem
    return report


Outcome = tuple[Job, str | None]  # a job and why it failed
Result = Picture | str | None  # to be written, why there is none, or written already


class _Pipeline:
    """Threads that read, one for each device that computes, threads that write."""

    def __init__(self, translators: Sequence[Translator], batch: int, quality: int, threads: int):
        self.free: queue.SimpleQueue[Translator] = queue.SimpleQueue()
        for translator in translators:
            self.free.put(translator)
        self.first, self.batch, self.quality, self.threads = translators[0], batch, quality, threads
        self.devices = len(translators)

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        alike = {
            "initializer": torch.set_num_threads,
            "initargs": (torch.get_num_threads(),),
        }  # OpenMP's is a thread's own
        with ThreadPoolExecutor(self.threads) as disk, ThreadPoolExecutor(self.devices, **alike) as devices:
            running: deque[Future[list[Future[Outcome]]]] = deque()
            try:
                for group in self._groups(jobs, disk):
                    running.append(devices.submit(self._compute, group, disk))
                    if len(running) > 2 * self.devices:  # no more pictures in memory than keep the devices busy
                        yield from _outcomes(running.popleft())
                while running:
                    yield from _outcomes(running.popleft())
            finally:  # also when the one who asks stops asking
                for executor in (devices, disk):
                    executor.shutdown(wait=False, cancel_futures=True)

    def _groups(self, jobs: Sequence[Job], disk: ThreadPoolExecutor) -> Iterator[list[tuple[Job, Any]]]:
        """Pictures of the same size and depth together, read ahead; a problem or a large picture goes alone."""
        waiting: dict[Any, list[tuple[Job, Any]]] = {}
        for job, read in _ahead(jobs, disk, self._read, self.threads + 2 * self.batch):
            if not isinstance(read, Picture):
                yield [(job, read)]
                continue
            alike = waiting.setdefault((read.size, read.deep), [])
            alike.append((job, read))
            if len(alike) == self.batch:
                yield waiting.pop((read.size, read.deep))
            elif sum(map(len, waiting.values())) > 4 * self.batch:
                yield waiting.pop(next(iter(waiting)))
        yield from waiting.values()

    def _read(self, job: Job) -> Picture | str | None:
        """A picture, why there is none, or None for one so large that it is read only when it is its turn."""
        try:
            if count_pixels(job.source) > self.first.tiling.above:
                return None
            return read_picture(job.source, self.first.channels, self.first.background)
        except (ImageError, OSError, MemoryError) as error:
            return reason_of(error)

    def _compute(self, group: list[tuple[Job, Any]], disk: ThreadPoolExecutor) -> list[Future[Outcome]]:
        translator = self.free.get()
        try:
            results = self._translated(translator, group)
        finally:
            self.free.put(translator)
        return [disk.submit(self._write, job, result) for job, result in results]

    def _translated(self, translator: Translator, group: list[tuple[Job, Any]]) -> list[tuple[Job, Result]]:
        jobs, pictures = zip(*group, strict=True)
        try:
            if pictures[0] is None:
                if translate_large(translator, jobs[0], self.quality):
                    return [(jobs[0], None)]
                pictures = [read_picture(jobs[0].source, translator.channels, translator.background)]
            if isinstance(pictures[0], str):
                return group
            results = zip(jobs, pictures, translator(pictures, [job.regions for job in jobs]), strict=True)
            return [(job, _pasted(job, picture, result)) for job, picture, result in results]
        except Exception as error:  # torch, onnxruntime and each device have their own, for lack of memory among others
            problem = reason_of(error)
        if len(group) == 1:
            return [(jobs[0], problem)]
        # Outside of `except`: the error's traceback holds what the failed call had computed.
        return [result for one in group for result in self._translated(translator, [one])]

    def _write(self, job: Job, result: Result) -> Outcome:
        if not isinstance(result, Picture):
            return job, result
        try:
            job.make_folder()
            with open_replacing(job.target) as file:
                write_picture(result, file, FORMATS[job.target.suffix.lower()], self.quality)
            return job, None
        except Exception as error:  # Pillow's plugins have many, and one file must not stop the others
            return job, f"cannot write {job.target}: {reason_of(error)}"


def _pasted(job: Job, picture: Picture, result: Picture) -> Picture:
    """The result where the job's mask is white, the picture itself where it is black. Raises ImageError."""
    if job.mask is None:
        return result
    if picture.pixels.shape != result.pixels.shape:
        raise ImageError(f"{job.source}: with a mask, a generator must give as many channels as it takes")
    return result.with_pixels(pasted(read_mask(job.mask, picture.size), result.pixels, picture.pixels))


def _ahead(jobs: Sequence[Job], disk: ThreadPoolExecutor, read: Any, count: int) -> Iterator[tuple[Job, Any]]:
    """(job, what `read` gives) in order, some of them already under way."""
    pending: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        pending.append((job, disk.submit(read, job)))
        if len(pending) > count:
            first, future = pending.popleft()
            yield first, future.result()
    while pending:
        first, future = pending.popleft()
        yield first, future.result()


def _outcomes(computed: Future[list[Future[Outcome]]]) -> list[Outcome]:
    return [written.result() for written in computed.result()]


def _mark_folders(generator: nn.Module, jobs: Sequence[Job], quality: int, overwrite: bool) -> dict[Path, Path | None]:
    """Note in each output folder who fills it, so that two generators' results don't get mixed by going on.

    Returns the marks by folder. A mark is as old as the first result that it stands for: what is older is another's.
    None for those of earlier versions, which were written again by every call.
    """
    masked = any(job.mask for job in jobs)
    mine = {**_identity(getattr(generator, "about", {})), "masked": masked, "quality": quality}
    lossy = any(FORMATS.get(job.target.suffix.lower()) in LOSSY_FORMATS for job in jobs)
    marks = {folder: folder / MARK for folder in {job.below for job in jobs if job.below is not None}}
    for folder, mark in marks.items():
        known = _same(mark, mine, lossy)
        if known is False and not overwrite and mine["sha256"]:
            raise WorkListError(
                f"{folder} holds translations by another generator, or in another style, region, mask or quality; "
                "choose another folder, or --overwrite"
            )
        if known is None and not overwrite:
            _refuse_strangers(folder, jobs)
        if not known:
            folder.mkdir(parents=True, exist_ok=True)
            with open_replacing(mark) as file:
                file.write(json.dumps(mine, indent=1).encode())
    return {folder: mark if "masked" in json.loads(mark.read_text()) else None for folder, mark in marks.items()}


def _refuse_strangers(folder: Path, jobs: Sequence[Job]) -> None:
    """Raises WorkListError for pictures where results shall go, in a folder without a mark."""
    if there := next((job.target for job in jobs if job.below == folder and job.target.exists()), None):
        raise WorkListError(
            f"{folder} holds {there.name}, and nothing there tells that it is a translation; "
            "choose another folder, or --overwrite"
        )


def _identity(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: about.get(name) for name in ("sha256", "source", "direction", "run", "images", "style")}


def _same(mark: Path, mine: Mapping[str, Any], lossy: bool) -> bool | None:
    """Whether a folder is filled by the same generator in the same way; None without a mark."""
    untold = {name: mine[name] for name in ("masked", "quality")}  # by older ones
    try:
        other = {**untold, **json.loads(mark.read_text(encoding="utf-8"))}
        return all(other.get(name) == mine[name] for name in ("sha256", "style", "masked", *["quality"] * lossy))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return False
