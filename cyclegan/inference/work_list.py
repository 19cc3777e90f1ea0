"""What to translate and where results go: files, folders and patterns on one side, places inside OUT on the other."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cyclegan.data.images import EXTENSIONS, find_images
from cyclegan.data.masks import masks_by_name
from cyclegan.errors import UserError
from cyclegan.inference.picture_files import FORMATS

KEEP = "keep"  # the format of the source
Alike = Callable[[Path], str]  # equal for names of one file


class WorkListError(UserError, ValueError):
    """Inputs and output that do not go together; the message says why."""


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path
    below: Path | None = None  # the folder that the target must not leave
    mask: Path | None = None  # white where the translation goes; elsewhere the source stays
    regions: tuple[Path, ...] = ()  # white where each style goes

    def done(self, mark: Path | None) -> bool:
        """Whether the target is there and not older than what it is made from: source, masks, the generator's mark."""
        sources = [self.source, *filter(None, (self.mask, mark)), *self.regions]
        try:
            return self.target.stat().st_mtime >= max(path.stat().st_mtime for path in sources)
        except OSError:
            return False

    def make_folder(self) -> None:
        """Raises WorkListError if a link, or "..", would lead out of the output folder."""
        if self.below is None:
            return
        folder = self.target.parent
        while not folder.exists():
            folder = folder.parent
        self._check_inside(folder)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._check_inside(self.target.parent)  # what was missing before may have led elsewhere

    def _check_inside(self, folder: Path) -> None:
        if not folder.resolve().is_relative_to(self.below.resolve()):
            raise WorkListError(f"{self.target} lies outside {self.below}, through a link or ..")


def plan(inputs: Sequence[str | Path], output: Path | str, format: str | None = None) -> list[Job]:
    """One job a picture, also if it is given twice; a folder keeps its tree and its names below `output`.

    Args:
        inputs: files, folders (searched with all their sub-folders) or patterns with * ? [ ] **
        output: a folder; for a single file also a file, told by its suffix
        format: suffix of the results, or "keep"; None for a named file's own, png in a folder

    A file that is not there becomes a job all the same, which fails when it is read. Raises WorkListError and
    FileNotFoundError.
    """
    output = Path(output)
    if format not in (None, KEEP) and f".{format}" not in FORMATS:
        raise WorkListError(f"no format {format!r}; there are keep, {', '.join(suffix[1:] for suffix in FORMATS)}")
    pairs = [pair for given in inputs for pair in _found(str(given), len(inputs) > 1)]
    found = list({(source.resolve(), name): (source, name) for source, name in pairs}.values())
    if len(inputs) == 1 and not Path(inputs[0]).is_dir() and len(found) == 1 and _is_file_name(output):
        check_format(output, found[0][0].suffix[1:].lower() if format == KEEP else format)
        return [_distinct(Job(found[0][0], output))]
    if output.exists() and not output.is_dir():
        raise WorkListError(f"{output} is a file; name a folder for several pictures")
    inside = output.resolve()
    found = [(source, name) for source, name in found if not _lies_in(source, inside, inputs)]
    alike = _casefolded if _folds_case(inside) else Path.as_posix
    names = _targets([name for _, name in found], format or "png", alike)
    jobs = [_distinct(Job(source, output / name, output)) for (source, _), name in zip(found, names, strict=True)]
    _refuse_twins(jobs, alike)
    if again := [given for given in inputs if Path(given).is_dir() and Path(given).resolve() == inside]:
        raise WorkListError(f"{again[0]} is to be read and written: its results would be translated, too, another time")
    return jobs


def check_format(output: Path, format: str | None) -> None:
    """Raises WorkListError for a file whose name says one format where another is asked for."""
    named, wanted = FORMATS.get(output.suffix.lower()), FORMATS.get(f".{format}", "PNG")
    if format and named and named != wanted:
        raise WorkListError(f"{output}: its name says {named}, the format {wanted}; leave one of them out")


def with_masks(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """Each job with the mask below `folder` that has its target's name, whatever the suffix.

    Raises WorkListError, and ImageError for two masks of one name.
    """
    return [replace(job, mask=mask) for job, mask in zip(jobs, _masks(jobs, folder, "--mask"), strict=True)]


def with_regions(jobs: Sequence[Job], places: Sequence[Path | str]) -> list[Job]:
    """Each job with a mask from each place: a folder of masks, found as `with_masks` does, or one file for all."""
    found = [
        _masks(jobs, Path(place), "--region") if Path(place).is_dir() else [Path(place)] * len(jobs) for place in places
    ]
    return [replace(job, regions=tuple(masks[i] for masks in found)) for i, job in enumerate(jobs)]


def keep_apart(targets: Iterable[Path], read: Iterable[Path]) -> None:
    """Raises WorkListError if a target would take the place of a picture that is read beside it: a style, a mask.

    read: pictures and folders of them
    """
    found = [file for path in read for file in (find_images(path) if path.is_dir() else [path]) if file.is_file()]
    pictures = {_inode(file): file for file in found}
    for target in targets:
        if target.exists() and (lost := pictures.get(_inode(target))):
            raise WorkListError(f"{target} would overwrite {lost}, which it is made from; choose another output")


def _inode(path: Path) -> tuple[int, int]:
    """Equal for names of one file, as `samefile` tells it."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _masks(jobs: Sequence[Job], folder: Path, option: str) -> list[Path]:
    known = masks_by_name(folder)
    names = [job.target.relative_to(job.below) if job.below else Path(job.source.name) for job in jobs]
    masks = [known.get(name.with_suffix("")) for name in names]
    if missing := [job.source for job, mask in zip(jobs, masks, strict=True) if mask is None]:
        raise WorkListError(
            f"{option}: {folder} has none for {len(missing)} of {len(jobs)} pictures, such as {missing[0]}"
        )
    return masks


def _found(given: str, several: bool) -> Iterable[tuple[Path, Path]]:
    """(file, name below the output folder) of one input."""
    path = Path(given)
    if path.is_dir():
        above = Path(path.resolve().name) if several else Path()
        return [(file, above / file.relative_to(path)) for file in find_images(path)]
    if path.exists() or not glob.has_magic(given):
        return [(path, Path(path.name))]
    matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
    matches = [match for match in matches if match.suffix.lower() in EXTENSIONS and match.is_file()]
    if not matches:
        raise FileNotFoundError(f"no pictures match {given}")
    parts = Path(given).parts
    base = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    names = [match.relative_to(base) for match in matches]
    if any(".." in name.parts for name in names):
        raise WorkListError(f"{given}: no .. behind * ? or [, its results would leave the output folder")
    return list(zip(matches, names, strict=True))


def _is_file_name(output: Path) -> bool:
    if output.is_dir():
        return False
    suffix = output.suffix.lower()
    if suffix not in FORMATS and (suffix in EXTENSIONS or suffix[1:].isalpha()):
        raise WorkListError(
            f"{output}: no format to write; there are {', '.join(known[1:] for known in FORMATS)} "
            "(if it shall be a folder, make it first)"
        )
    return suffix in FORMATS


def _lies_in(source: Path, output: Path, inputs: Sequence[str | Path]) -> bool:
    """Results of an earlier call below an input folder are no inputs, unless that very folder was given."""
    given = any(Path(path).resolve().is_relative_to(output) for path in inputs if Path(path).exists())
    return not given and source.resolve().is_relative_to(output)


def _targets(names: list[Path], format: str, alike: Alike) -> list[Path]:
    if format == KEEP:
        return [name if name.suffix.lower() in FORMATS else name.with_name(f"{name.name}.png") for name in names]
    renamed = [name.with_suffix(f".{format}") for name in names]
    seen = Counter(map(alike, renamed))
    # a.jpg and a.png beside each other become a.jpg.png and a.png.png
    return [
        name.with_name(f"{name.name}.{format}") if seen[alike(new)] > 1 else new
        for name, new in zip(names, renamed, strict=True)
    ]


def _casefolded(name: Path) -> str:
    return name.as_posix().casefold()


def _folds_case(folder: Path) -> bool:
    """Whether names that differ in capitals are one file there, as on macOS and Windows."""
    for part in (folder, *folder.parents):
        other = part.with_name(part.name.swapcase()) if part.name else part
        if part.exists() and other != part:
            return other.exists() and other.samefile(part)
    return False


def _distinct(job: Job) -> Job:
    if job.target.exists() and job.source.exists() and job.target.samefile(job.source):
        raise WorkListError(f"{job.target} would overwrite its own source; choose another output")
    return job


def _refuse_twins(jobs: list[Job], alike: Alike) -> None:
    first: dict[str, Path] = {}
    for job in jobs:
        before = first.setdefault(alike(job.target), job.source)
        if before != job.source:
            raise WorkListError(f"{before} and {job.source} would both become {job.target}")
