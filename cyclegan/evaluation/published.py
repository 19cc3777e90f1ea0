"""Published results with the protocol that their numbers belong to, to be met by ours under the same one.

From clean-fid's README (GaParmar/clean-fid): real test images against translated test images, at 256 x 256.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Published:
    """`reference` below the data set's root; counts; FIDs by method, under `pytorch-fid` (legacy) and `clean`."""

    reference: str
    n_real: int
    n_fake: int
    results: dict[str, dict[str, float]] = field(default_factory=dict)


PROTOCOLS = ("pytorch-fid", "clean")


def _both(legacy: float | None, clean: float) -> dict[str, float]:
    return {"clean": clean} if legacy is None else {"pytorch-fid": legacy, "clean": clean}


PUBLISHED = {
    "horse2zebra": Published(
        "testB",
        n_real=140,
        n_fake=120,
        results={
            "CUT": _both(45.51, 43.71),
            "Distance": _both(71.97, 71.01),
            "FastCUT": _both(73.38, 72.53),
            "CycleGAN": _both(77.20, 75.17),
            "SelfDistance": _both(80.78, 79.28),
            "GCGAN": _both(85.86, 83.65),
            "MUNIT": _both(None, 120.48),
            "DRIT": _both(None, 99.56),
        },
    ),
    "cat2dog": Published(
        "testB",
        n_real=500,
        n_fake=500,
        results={
            "CUT": _both(76.21, 77.58),
            "FastCUT": _both(93.95, 95.37),
            "GCGAN": _both(96.61, 96.49),
            "MUNIT": _both(None, 123.73),
            "DRIT": _both(None, 127.21),
        },
    ),
}
