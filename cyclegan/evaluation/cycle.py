"""Errors that a run's two generators make on pictures of their test split, without any network but their own."""

from __future__ import annotations

from statistics import fmean

import torch

from cyclegan.evaluation.content import cycle_error, identity_error
from cyclegan.evaluation.directions import Direction, batches, masks_of, translation
from cyclegan.evaluation.statistics import EvaluationError


def errors_of(way: Direction, batch_size: int = 8, device: torch.device | str = "cpu") -> dict[str, float]:
    """Means over pictures of |back(there(a)) - a| and of |there(b) - b|, in [0, 2]; what is missing is an error."""
    if way.back is None:
        raise EvaluationError(f"{way.name}: a cycle needs both generators, and this run has no way back")
    numbers = {"cycle_error": fmean(cycle_errors(way, batch_size, device))}
    if identity := identity_errors(way, batch_size, device):
        numbers["identity_error"] = fmean(identity)
    return numbers


def cycle_errors(way: Direction, batch_size: int, device: torch.device | str) -> list[float]:
    """Of each source picture, translated there and back."""
    values = []
    for paths, images in batches(way.files, way.read, batch_size):
        real = images.to(device)
        mask = masks_of(way.masks, paths, real)
        there, back = (translation(g, mask, real) for g in (way.generator, way.back))
        values += cycle_error(real, there, back).tolist()
    return values


def identity_errors(way: Direction, batch_size: int, device: torch.device | str) -> list[float]:
    """Of each picture of the target domain, in its own style; none if the domains differ in their channels."""
    if way.generator.about["input"]["channels"] != way.generator.about["output"]["channels"]:
        return []
    values = []
    for paths, images in batches(way.references.files, way.read_target, batch_size):
        real = images.to(device)
        styles = real.split(1) if way.styles else None
        mask = masks_of(way.reference_masks, paths, real)
        values += identity_error(real, translation(way.generator, mask, real, styles)).tolist()
    return values
