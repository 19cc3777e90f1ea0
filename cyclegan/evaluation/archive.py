"""Files of statistics: `mu` and `sigma` as every FID tool keeps them, and beside them what they were made of."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.features import FeatureSet, Pictures, collect, fingerprint
from cyclegan.evaluation.ranks import on_first_rank
from cyclegan.evaluation.statistics import EvaluationError, Statistics

FORMAT = 1
IDENTITY = ("extractor", "protocol", "layer", "weights_sha256")
UNUSED = ("arr_0", "mu_s", "sigma_s")  # ADM's pictures and spatial statistics, hundreds of megabytes

# What numpy and zipfile raise for a damaged file; RuntimeError where the byte that tells how it is packed is wrong.
DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)


def save_statistics(path: Path | str, features: FeatureSet, with_features: bool = False) -> None:
    """Write an `.npz` that pytorch-fid, clean-fid and this package read; kid and the like need `with_features`."""
    _write(Path(path), _moments(features) | _description(features) | (_rows(features) if with_features else {}))


def load_statistics(path: Path | str) -> FeatureSet:
    """Read an `.npz` of ours, pytorch-fid's, clean-fid's (of FID or of KID) or ADM's; raises EvaluationError."""
    arrays = _read(Path(path))
    rows = arrays.get("features", arrays.get("feats"))
    if rows is not None and (rows.ndim != 2 or rows.dtype.kind != "f"):
        raise EvaluationError(f"{path}: expected features (n, d) of floats, found {rows.shape} of {rows.dtype}")
    if rows is not None and not np.isfinite(rows).all():
        raise EvaluationError(f"{path}: some features are not finite")
    # Torch takes numbers in this machine's order of bytes only.
    features = None if rows is None else torch.from_numpy(rows.astype(rows.dtype.newbyteorder("="), copy=False))
    if features is None and not {"mu", "sigma"} <= arrays.keys():
        raise EvaluationError(
            f"{path} has no mu and sigma: expected statistics, found {', '.join(arrays) or 'nothing'}"
        )
    statistics = _given(arrays, path) if {"mu", "sigma"} <= arrays.keys() else Statistics.of(features)
    if "protocol" in arrays and (missing := [key for key in IDENTITY if key not in arrays]):
        raise EvaluationError(f"{path} says its protocol but not its {', '.join(missing)}: write it again")
    identity = {key: str(arrays[key]) for key in IDENTITY} if "protocol" in arrays else None
    warnings = [str(text) for text in arrays.get("warnings", [])]
    if identity is None:
        warnings.append(f"{path} does not say its protocol or weights: make sure that they are the same")
    marks = str(arrays["fingerprint"]) if "fingerprint" in arrays else None
    return FeatureSet(statistics, features, str(path), marks, identity, warnings)


def collect_cached(pictures: Pictures, extractor: Extractor, cache: Path | str, **options) -> FeatureSet:
    """`collect`, or what it gave before for the same bytes, extractor and protocol; `cache` is a folder.

    The file's name is a hash of all that, so that it cannot be stale. Extractors without a weights hash, or with a
    `prepare` that no protocol names, are not cached.
    """
    if not extractor.is_named or pictures.read is not None:
        return collect(pictures, extractor, **options)
    made_of = "\0".join([*extractor.identity().values(), fingerprint(pictures), str(FORMAT)])
    path = Path(cache) / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.npz"
    known = on_first_rank(lambda: _known(path, needs_features=options.get("keep") is None))
    if known:
        return replace(known, source=str(pictures.folder or f"{len(pictures.files)} files"))
    fresh = collect(pictures, extractor, **options)
    try:
        on_first_rank(lambda: _write(path, (_rows(fresh) or _moments(fresh)) | _description(fresh)))
    except OSError as error:  # a full disk is no reason to lose what took hours
        fresh.warnings.append(f"features could not be kept in {cache}: {error}")
    return fresh


def mismatch(identity: dict[str, str], known: FeatureSet) -> str | None:
    """Why features of `identity` must not be compared with `known`: another extractor, protocol, layer or weights."""
    for key, value in (known.identity or {}).items():
        if value != identity[key]:
            return f"{known.source} was made with {key} {value}, this run uses {identity[key]}"
    return None


def _known(path: Path, needs_features: bool) -> FeatureSet | None:
    try:
        known = load_statistics(path)
    except (EvaluationError, FileNotFoundError):
        return None
    return None if needs_features and known.features is None else known


def _moments(features: FeatureSet) -> dict[str, np.ndarray]:
    return {"mu": features.statistics.mu.numpy(), "sigma": features.statistics.sigma.numpy()}


def _rows(features: FeatureSet) -> dict[str, np.ndarray]:
    return {} if features.features is None else {"features": features.features.numpy()}


def _description(features: FeatureSet) -> dict[str, np.ndarray]:
    known = {
        **(features.identity or {}),
        "n": features.n,
        "fingerprint": features.fingerprint,
        "warnings": features.warnings,
        "format": FORMAT,
    }
    return {key: np.asarray(value) for key, value in known.items() if value not in (None, [])}


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        np.savez(f"{scratch}/whole.npz", **arrays)
        Path(scratch, "whole.npz").replace(path)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"no statistics file {path}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise EvaluationError(f"{path} holds a single array (.npy) and not an .npz of statistics")
        with loaded as archive:
            return {key: archive[key] for key in archive.files if key not in UNUSED}
    except DAMAGE as error:
        raise EvaluationError(f"{path} is not a readable .npz of statistics: {error}") from error


def _given(arrays: dict[str, np.ndarray], path: Path | str) -> Statistics:
    mu, sigma = np.squeeze(arrays["mu"]).astype(np.float64), np.squeeze(arrays["sigma"]).astype(np.float64)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise EvaluationError(f"{path}: expected mu (d,) and sigma (d, d), found {mu.shape} and {sigma.shape}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise EvaluationError(f"{path}: mu or sigma is not finite")
    if not np.allclose(sigma, sigma.T, rtol=1e-4, atol=1e-6 * max(np.abs(sigma).max(), 1e-30)):
        raise EvaluationError(f"{path}: sigma is not symmetric, so it is no covariance")
    n = int(arrays["n"]) if "n" in arrays else None
    return Statistics(n, torch.from_numpy(mu), given_sigma=torch.from_numpy(sigma))
