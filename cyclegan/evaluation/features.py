"""Features of many pictures: read by worker processes, shared out over ranks, kept or summed up in bounded memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cyclegan.data.images import ImageError, orientation_of
from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.ranks import gathered, rank_and_world, together
from cyclegan.evaluation.statistics import EvaluationError, Moments, Statistics
from cyclegan.networks.pretrained import sha256_of

KEPT = 20_000  # rows: beyond, a covariance is what we keep unless a metric needs the features themselves

ODDITIES = {
    "jpeg": "JPEG files, whose compression alone moves the FID (translations are better kept as PNG)",
    "16-bit": "16-bit grey pictures, which every FID tool cuts at 255 instead of scaling them: convert them to 8 bits",
    "alpha": "pictures with transparency, which every FID tool drops instead of compositing it",
    "grey": "grey pictures, repeated over three channels",
    "turned": "pictures with an EXIF rotation, which every FID tool ignores",
}


@dataclass(frozen=True)
class Pictures:
    """Picture files and how to get pixels from one, as uint8 (3, h, w): None reads it as every FID tool does.

    A generator is scored by a `read` that opens, translates and quantises: `to_bytes(G(x))[0]`. `part` names what a
    `read` takes of its files, where another takes something else.
    """

    files: Sequence[Path]
    read: Callable[[Path], Tensor] | None = None
    folder: Path | None = None
    part: str = ""


@dataclass
class FeatureSet:
    """What is known of one side: features in the files' order, or only their statistics, and where they are from."""

    statistics: Statistics
    features: Tensor | None = None
    source: str = "tensors"
    fingerprint: str | None = None
    identity: dict[str, str] | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def n(self) -> int | None:
        return self.statistics.n


class Collection:
    """Features as they come: all of them, or from the (keep + 1)-th on only their moments."""

    def __init__(self, keep: int | None = None):
        self.keep = keep
        self.rows: list[Tensor] = []
        self.moments: Moments | None = None
        self.n = 0

    def update(self, features: Tensor) -> None:
        """Take in (n, d) features."""
        self.n += len(features)
        if self.moments:
            self.moments.update(features)
        else:
            self.rows.append(features)
            if self.keep is not None and self.n > self.keep:
                self._sum_up()

    def merge(self, other: Collection) -> None:
        """Take in another collection, such as another process's."""
        if other.moments:
            self._sum_up()
            self.moments.merge(other.moments)
            self.n += other.n
        else:
            for rows in other.rows:
                self.update(rows)

    def across_ranks(self) -> Collection:
        """The same on every rank: all ranks' rows, dealt as `items[rank::world]` deals them."""
        collections = gathered(self)
        if len(collections) == 1:
            return self
        whole = Collection(self.keep)
        if any(collection.moments for collection in collections):
            for collection in collections:
                whole.merge(collection)
        else:
            whole.update(_undealt([torch.cat(c.rows) for c in collections if c.rows]))
        return whole

    def features(self) -> Tensor | None:
        return None if self.moments or not self.rows else torch.cat(self.rows)

    def statistics(self) -> Statistics:
        if self.n < 2:
            raise EvaluationError(f"a distance needs at least 2 images on each side, got {self.n}")
        return self.moments.statistics() if self.moments else Statistics.of(self.features())

    def _sum_up(self) -> None:
        if self.moments is None:
            self.moments = Moments()
            for rows in self.rows:
                self.moments.update(rows)
            self.rows = []


def collect(
    pictures: Pictures,
    extractor: Extractor,
    keep: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = False,
) -> FeatureSet:
    """Features of pictures of any sizes; in a process group every rank reads its share and gets the whole.

    `keep` bounds the memory (None keeps every feature). Raises ImageError naming a file that cannot be read.
    """
    if len(pictures.files) < 2:
        raise EvaluationError(
            f"a distance needs at least 2 images on each side, got {[str(p) for p in pictures.files]}"
        )
    rank, world = rank_and_world()
    share = Pictures(pictures.files[rank::world], pictures.read)
    collection, oddities = Collection(keep), Counter()

    def extract() -> None:
        for batch, odd in _batches(share, batch_size, workers, progress and rank == 0):
            collection.update(extractor(batch))
            oddities.update(odd)

    together(extract)
    whole = collection.across_ranks()
    return FeatureSet(
        whole.statistics(),
        whole.features(),
        source=str(pictures.folder or f"{len(pictures.files)} files"),
        fingerprint=fingerprint(pictures),
        identity=extractor.identity(),
        warnings=[f"{count} {ODDITIES[odd]}" for odd, count in sum(gathered(oddities), Counter()).items()],
    )


def features_of_files(files: Sequence[Path], extractor: Extractor, **options) -> Tensor:
    """(n, d) float32 features of picture files, in their order; options as of `collect`."""
    return collect(Pictures(files), extractor, **options).features


def fingerprint(pictures: Pictures) -> str:
    """sha256 over the part, the names and the bytes of the files, whatever their folder is called."""
    digest = hashlib.sha256(pictures.part.encode())
    for path in pictures.files:
        name = path.relative_to(pictures.folder) if pictures.folder else path.name
        digest.update(f"{name}\0{sha256_of(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def read_rgb(path: Path) -> Tensor:
    """A picture as uint8 (3, h, w), read as every FID tool reads it: Pillow's convert("RGB") and nothing else."""
    return _read_noting(path)[0]


def _read_noting(path: Path) -> tuple[Tensor, list[str]]:
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1), _oddities(image)
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and more
        raise ImageError(f"cannot read {path}: {error or type(error).__name__}") from error


def _oddities(image: Image.Image) -> list[str]:
    found = {
        "jpeg": image.format in ("JPEG", "MPO"),  # MPO: JPEG with a second picture, as telephones make it
        "16-bit": image.mode in ("I", "F") or image.mode.startswith("I;16"),
        "alpha": image.has_transparency_data,
        "grey": image.mode in ("1", "L", "LA"),
        "turned": orientation_of(image) != 1,
    }
    return [odd for odd, is_there in found.items() if is_there]


def _batches(
    pictures: Pictures, batch_size: int, workers: int, progress: bool
) -> Iterator[tuple[list[Tensor], list[str]]]:
    if pictures.read is not None:
        workers = 0  # it may hold a generator on a GPU, which a forked worker cannot use
    loader = DataLoader(_Reader(pictures), batch_size, num_workers=workers, collate_fn=_as_arrays)
    with tqdm(total=len(pictures.files), unit="image", disable=None if progress else True, leave=False) as bar:
        for batch in loader:
            for failure in (item for item in batch if isinstance(item, ImageError)):
                raise failure
            tensors, oddities = zip(*batch, strict=True)
            yield [torch.from_numpy(tensor) for tensor in tensors], [odd for odds in oddities for odd in odds]
            bar.update(len(batch))


def _as_arrays(batch: list) -> list:
    """Tensors would each take an open file on their way out of a worker, of which a process may have 1024 or so."""
    return [item if isinstance(item, ImageError) else (item[0].numpy(), item[1]) for item in batch]


class _Reader(Dataset):
    def __init__(self, pictures: Pictures):
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures.files)

    def __getitem__(self, index: int) -> tuple[Tensor, list[str]] | ImageError:
        path = self.pictures.files[index]
        try:
            return (self.pictures.read(path), []) if self.pictures.read else _read_noting(path)
        except ImageError as error:
            return error  # raised by a worker, its one line would come back wrapped in a traceback


def _undealt(shares: list[Tensor]) -> Tensor:
    """The rows in the order from which `rows[rank::world]` made the shares."""
    places = [torch.arange(len(share)) * len(shares) + rank for rank, share in enumerate(shares)]
    return torch.cat(shares)[torch.cat(places).argsort()]
