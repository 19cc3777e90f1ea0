"""From two sets of pictures to numbers with their protocol: `evaluate` for files, `Evaluator` for tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cyclegan.data.images import find_images, to_bytes
from cyclegan.evaluation.archive import collect_cached, load_statistics, mismatch
from cyclegan.evaluation.bootstrap import METHOD, interval
from cyclegan.evaluation.card import make_card
from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.features import (
    KEPT,
    Collection,
    FeatureSet,
    Pictures,
    collect,
)
from cyclegan.evaluation.frechet import check_infinity, frechet_distance, frechet_draws, frechet_infinity
from cyclegan.evaluation.kernel import kid, kid_draws, kid_of_subsets
from cyclegan.evaluation.neighbours import density_coverage, precision_recall
from cyclegan.evaluation.ranks import on_first_rank, rank_and_world
from cyclegan.evaluation.statistics import EvaluationError

ENOUGH = 2048  # images a side: below, FID's bias is larger than most differences between methods
# Draws times images squared, in about five minutes: the other ranks of a process group wait no longer than ten.
DRAWN_TOGETHER = 2.5e9

Side = str | Path | Sequence[Path] | Pictures | FeatureSet


@dataclass(frozen=True)
class Settings:
    """How the metrics count; written into every card."""

    neighbours: int = 5  # of density and coverage
    precision_neighbours: int = 3
    subsets: int = 100
    subset_size: int = 1000
    bootstrap: int = 0  # draws for the standard errors and intervals of fid and kid, 0 for none
    confidence: float = 0.95  # of the intervals
    seed: int = 2020  # torch-fidelity's

    def __post_init__(self) -> None:
        if self.bootstrap < 0 or self.bootstrap == 1:
            raise EvaluationError(f"bootstrap takes 0 or at least 2 draws, got {self.bootstrap}")
        if not 0 < self.confidence < 1:
            raise EvaluationError(f"confidence lies between 0 and 1, such as 0.95, got {self.confidence}")


DEFAULTS = Settings()


@dataclass(frozen=True)
class Evaluation:
    """Numbers by name, and the card: the same numbers with all that someone else needs to get them."""

    numbers: dict[str, float]
    card: dict

    @property
    def warnings(self) -> list[str]:
        return self.card["warnings"]


def evaluate(
    fake: Side,
    real: Side,
    extractor: Extractor,
    metrics: Sequence[str] = ("fid", "kid"),
    settings: Settings = DEFAULTS,
    cache: Path | str | None = None,
    mix_protocols: bool = False,
    checkpoint: str | None = None,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Compare translations with real pictures of their domain.

    A side is a folder, an `.npz` of statistics, a list of files, `Pictures` that say how to read theirs (through a
    generator, say), or what `side_of` gave before. In a process group call it on all ranks: each reads its share and
    all get the result. Raises EvaluationError, ImageError and FileNotFoundError with one line.
    """
    check_metrics(metrics)
    fake, real = _as_pictures(fake), _as_pictures(real)
    check_counts(fake, real, metrics, settings)
    options = dict(batch_size=batch_size, workers=workers, progress=progress, cache=cache, metrics=metrics)
    reals = side_of(real, extractor, bootstrap=settings.bootstrap, **options)
    check_counts(fake, reals, metrics, settings)
    fakes = side_of(fake, extractor, bootstrap=settings.bootstrap, **options)
    mixed = [reason for side in (fakes, reals) if (reason := mismatch(extractor.identity(), side))]
    if mixed and not mix_protocols:
        raise EvaluationError(f"{mixed[0]}: make both sides alike, or say that you want them mixed (--mix-protocols)")
    return on_first_rank(lambda: _evaluation(fakes, reals, extractor, metrics, settings, checkpoint, mixed))


def _as_pictures(side: Side) -> Pictures | FeatureSet:
    """A side with its files found, or its statistics read."""
    if isinstance(side, str | Path):
        return load_statistics(side) if Path(side).suffix == ".npz" else Pictures(find_images(side), folder=Path(side))
    return side if isinstance(side, Pictures | FeatureSet) else Pictures([Path(path) for path in side])


def check_counts(
    fake: Pictures | FeatureSet, real: Pictures | FeatureSet, metrics: Sequence[str], settings: Settings = DEFAULTS
) -> None:
    """Raises EvaluationError, before their features are taken, for sides with too few pictures."""
    neighbours = {"density_coverage": settings.neighbours, "precision_recall": settings.precision_neighbours}
    least = max(2, *(neighbours.get(metric, 0) + 1 for metric in metrics))
    for side in (fake, real):
        if isinstance(side, Pictures) and len(side.files) < least:
            found = f"{len(side.files)} ({side.files[0]})" if side.files else "none"
            raise EvaluationError(f"{', '.join(metrics)} need at least {least} images on each side, got {found}")
    if "fid_infinity" in metrics and isinstance(fake, Pictures) and isinstance(real, FeatureSet):
        check_infinity(len(fake.files), len(real.statistics.mu))


def side_of(
    side: Side,
    extractor: Extractor,
    metrics: Sequence[str] = ("fid", "kid"),
    cache: Path | str | None = None,
    bootstrap: int = 0,
    **options,
) -> FeatureSet:
    """One side's features, for any number of calls of `evaluate`; its metrics and draws say whether all are kept."""
    side = _as_pictures(side)
    if isinstance(side, FeatureSet):
        return side
    keep = None if needs_features(metrics, bootstrap) else KEPT
    if cache:
        return collect_cached(side, extractor, cache, keep=keep, **options)
    return collect(side, extractor, keep=keep, **options)


class Evaluator:
    """The same for pictures that come as tensors, batch by batch.

    evaluator = Evaluator(inception()); evaluator.update(batch, real=True); ...; evaluator.compute().numbers
    """

    def __init__(self, extractor: Extractor, metrics: Sequence[str] = ("fid", "kid"), settings: Settings = DEFAULTS):
        check_metrics(metrics)
        self.extractor, self.metrics, self.settings = extractor, metrics, settings
        keep = None if needs_features(metrics, settings.bootstrap) else KEPT
        self.reals, self.fakes = Collection(keep), Collection(keep)

    def update(self, pictures: Tensor, real: bool) -> None:
        """Take in (n, 3, h, w) pictures: uint8, or floats in [-1, 1], which are rounded as a saved PNG is."""
        if pictures.is_floating_point():
            if not pictures.abs().amax() < 10:  # a generator may leave its range a little, and is cut as in a file
                raise EvaluationError(f"floats must lie in [-1, 1], got {pictures.amin():g} to {pictures.amax():g}")
            pictures = to_bytes(pictures)
        (self.reals if real else self.fakes).update(self.extractor(list(pictures)))

    def merge(self, other: Evaluator) -> None:
        """Take in what another evaluator with the same extractor has seen."""
        if self.extractor.identity() != other.extractor.identity():
            raise EvaluationError(f"cannot merge features of {self.extractor.name} and of {other.extractor.name}")
        self.reals.merge(other.reals)
        self.fakes.merge(other.fakes)

    def compute(self) -> Evaluation:
        """Of all that was seen so far, on all ranks of a process group."""
        reals, fakes = (self._set(side.across_ranks()) for side in (self.reals, self.fakes))
        return on_first_rank(lambda: _evaluation(fakes, reals, self.extractor, self.metrics, self.settings))

    def _set(self, side: Collection) -> FeatureSet:
        return FeatureSet(side.statistics(), side.features(), identity=self.extractor.identity())


def higher_is_better(metric: str) -> bool:
    """Of a number's name: distances want to be small, shares of neighbours large."""
    return metric.startswith(("precision", "recall", "density", "coverage"))


def check_metrics(metrics: Sequence[str]) -> None:
    if isinstance(metrics, str):  # whose letters would be looked up
        raise EvaluationError(f"metrics are a list, such as [{metrics!r}]")
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise EvaluationError(f"no metric {', '.join(unknown) or 'given'}: expected some of {', '.join(METRICS)}")


def needs_features(metrics: Sequence[str], bootstrap: int = 0) -> bool:
    """Whether mean and covariance are too little for some of the metrics, or for bootstrap draws."""
    return bootstrap > 0 or any(metric != "fid" for metric in metrics)


def _evaluation(
    fakes: FeatureSet,
    reals: FeatureSet,
    extractor: Extractor,
    metrics: Sequence[str],
    settings: Settings,
    checkpoint: str | None = None,
    warnings: Sequence[str] = (),
) -> Evaluation:
    for side in (fakes, reals):
        if side.features is None and needs_features(metrics, settings.bootstrap):
            wanted = ", ".join([metric for metric in metrics if metric != "fid"] or ["bootstrap"])
            raise EvaluationError(
                f"{wanted} needs the features of {side.source}, which holds only their mean and covariance"
            )
    _check_draws(fakes, reals, settings)
    numbers = {
        number_name(key, extractor): value.item()
        for metric in metrics
        for key, value in METRICS[metric](fakes, reals, settings).items()
    }
    warnings = list(dict.fromkeys([*warnings, *fakes.warnings, *reals.warnings, *_too_few(fakes, reals, metrics)]))
    card = make_card(numbers, fakes, reals, extractor, settings, warnings, checkpoint)
    return Evaluation(numbers, card | ({"intervals": METHOD} if settings.bootstrap else {}))


def _check_draws(fakes: FeatureSet, reals: FeatureSet, settings: Settings) -> None:
    most = max(side.n or 0 for side in (fakes, reals))
    if rank_and_world()[1] > 1 and settings.bootstrap * most**2 > DRAWN_TOGETHER:
        raise EvaluationError(
            f"{settings.bootstrap} draws of {most} images take the first process minutes, in which the others would "
            "give up: compute features with --cache, then draw in a single process"
        )


def number_names(metrics: Sequence[str], extractor: Extractor) -> list[str]:
    """What `evaluate` will call the numbers of these metrics, without draws."""
    return [number_name(key, extractor) for metric in metrics for key in NUMBERS[metric]]


def number_name(key: str, extractor: Extractor) -> str:
    """FID is a name for one network's features; the names of others stand in the keys."""
    return key if extractor.is_fid else f"{key.replace('fid', 'fd')}_{extractor.name}"


def _too_few(fakes: FeatureSet, reals: FeatureSet, metrics: Sequence[str]) -> list[str]:
    if min(side.n or ENOUGH for side in (fakes, reals)) >= ENOUGH:
        return []
    if "fid" in metrics:
        meaning = "FID is mostly bias; compare it only at equal numbers, and look at KID"
    else:
        meaning = f"chance moves {', '.join(metrics)} a lot; compare only at equal numbers"
    real, fake = (side.n or "an unknown number of" for side in (reals, fakes))
    return [f"{real} real and {fake} fake images: below {ENOUGH} {meaning}"]


def _fid(fakes: FeatureSet, reals: FeatureSet, settings: Settings) -> dict[str, Tensor]:
    fid = frechet_distance(fakes.statistics, reals.statistics)
    return {"fid": fid, **_spread("fid", fid, frechet_draws, fakes, reals, settings)}


def _spread(
    name: str, value: Tensor, draws: Callable, fakes: FeatureSet, reals: FeatureSet, settings: Settings
) -> dict[str, Tensor]:
    """Standard error and confidence interval by the bootstrap; nothing if no draws are wanted."""
    if not settings.bootstrap:
        return {}
    drawn = draws(fakes.features, reals.features, settings.bootstrap, settings.seed)
    low, high = interval(value, drawn, settings.confidence)
    return {f"{name}_stderr": drawn.std(), f"{name}_low": low, f"{name}_high": high}


def _fid_infinity(fakes: FeatureSet, reals: FeatureSet, settings: Settings) -> dict[str, Tensor]:
    return {"fid_infinity": frechet_infinity(fakes.features, reals.statistics, seed=settings.seed)}


def _kid(fakes: FeatureSet, reals: FeatureSet, settings: Settings) -> dict[str, Tensor]:
    distance = kid(fakes.features, reals.features)
    return {"kid": distance, **_spread("kid", distance, kid_draws, fakes, reals, settings)}


def _kid_subsets(fakes: FeatureSet, reals: FeatureSet, settings: Settings) -> dict[str, Tensor]:
    mean, deviation = kid_of_subsets(
        fakes.features, reals.features, settings.subsets, settings.subset_size, settings.seed
    )
    return {"kid_subsets_mean": mean, "kid_subsets_std": deviation}


def _precision_recall(fakes: FeatureSet, reals: FeatureSet, settings: Settings) -> dict[str, Tensor]:
    precision, recall = precision_recall(reals.features, fakes.features, settings.precision_neighbours)
    return {"precision": precision, "recall": recall}


def _density_coverage(fakes: FeatureSet, reals: FeatureSet, settings: Settings) -> dict[str, Tensor]:
    density, coverage = density_coverage(reals.features, fakes.features, settings.neighbours)
    return {"density": density, "coverage": coverage}


NUMBERS = {
    "fid": ("fid",),
    "fid_infinity": ("fid_infinity",),
    "kid": ("kid",),
    "kid_subsets": ("kid_subsets_mean", "kid_subsets_std"),
    "precision_recall": ("precision", "recall"),
    "density_coverage": ("density", "coverage"),
}
METRICS: dict[str, Callable[[FeatureSet, FeatureSet, Settings], dict[str, Tensor]]] = {
    "fid": _fid,
    "fid_infinity": _fid_infinity,
    "kid": _kid,
    "kid_subsets": _kid_subsets,
    "precision_recall": _precision_recall,
    "density_coverage": _density_coverage,
}
