"""What a run's folder holds, read without disturbing the run that may still write there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cyclegan.algorithms import complete_config
from cyclegan.config import NAMED, Config
from cyclegan.errors import UserError
from cyclegan.training.journal import read_metrics
from cyclegan.training.remarks import Remark, read_remarks
from cyclegan.training.rollback import rollbacks


class ReportError(UserError, ValueError):
    """A folder that no report can be made of; the message says why."""


@dataclass
class Contents:
    """A run as it lies on the disk."""

    name: str
    lines: list[dict[str, float]]  # of curves
    sheets: list[Path]  # named by images seen, oldest first
    remarks: list[Remark]
    config: dict[str, Any]
    environment: dict[str, Any]


def read_contents(folder: Path) -> Contents:
    """Raises ReportError if there is no run in the folder, or nothing to show yet."""
    if not folder.is_dir():
        raise ReportError(f"no folder {folder}; {_neighbours(folder.parent)}")
    log = folder / "log"
    lines = read_metrics(log / "metrics.jsonl") if (log / "metrics.jsonl").exists() else []
    sheets = sorted(path for path in folder.glob("samples/*.png") if path.stem.isdigit())
    if not lines and not sheets and not (folder / "config.yaml").exists():
        raise ReportError(f"{folder} is no run's folder; {_neighbours(folder)}")
    if not lines and not sheets:
        raise ReportError(f"{folder}: nothing logged yet; curves come every logging.log_every images of a run")
    return Contents(
        folder.resolve().name,
        lines,
        sheets,
        sorted([*read_remarks(log / "remarks.jsonl"), *_rollbacks(log)], key=lambda remark: remark.images),
        _read_config(folder / "config.yaml"),
        _read_environment(log / "environment.json"),
    )


def _rollbacks(log: Path) -> list[Remark]:
    return [
        Remark(line["images"], "rollback", f"went back to {line['to']:,} images: {line['why']}", line["images"])
        for line in rollbacks(log)
    ]


def _neighbours(folder: Path) -> str:
    runs = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
    return f"runs in {folder}: {', '.join(runs)}" if runs else f"no runs in {folder}"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _read_environment(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def differences(values: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, value, default) of all options that a run sets otherwise; None for options that have no default."""
    try:
        given = {section: {"name": values[section]["name"]} for section in NAMED if section in values}
        defaults = complete_config(Config(name="defaults", **given)).model_dump(mode="json")
    except (ValueError, KeyError, TypeError):  # written by another version, or an algorithm that is not installed
        defaults = {}
    known = flattened(defaults)
    return [
        (key, value, known.get(key))
        for key, value in flattened(values).items()
        if key != "name" and (key not in known or known[key] != value)
    ]


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
