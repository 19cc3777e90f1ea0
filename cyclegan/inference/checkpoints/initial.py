"""Starting weights for fine-tuning: from a run of ours, from the reference's or CUT's files, network by network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cyclegan.errors import UserError, reason_of
from cyclegan.inference.checkpoints import reference_files
from cyclegan.inference.checkpoints.reference_files import Weights

ONE_WAY = {"AtoB": {"G": "G_AB", "D": "D_B"}, "BtoA": {"G": "G_BA", "D": "D_A"}}  # their G and D, by direction
GENERATOR_FILES = {"G_AB": "AtoB", "G_BA": "BtoA"}


class InitialError(UserError, ValueError):
    """Starting weights that cannot be had; the message names the file or folder and what is missing."""


@dataclass(frozen=True)
class Start:
    """What became of one network: `left` holds the tensors that kept their fresh values, with the reason."""

    network: str
    source: Path | None
    loaded: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)  # tensors of the file that the network does not have

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.network}: nothing found, starts afresh"
        text = f"{self.network}: {len(self.loaded)} of {len(self.loaded) + len(self.left)} tensors from {self.source}"
        if self.left:
            some = "; ".join(f"{name} {reason}" for name, reason in list(self.left.items())[:3])
            text += f"; fresh: {some}{' …' * (len(self.left) > 3)}"
        if self.unused:
            text += f"; not used: {', '.join(self.unused[:3])}{' …' * (len(self.unused) > 3)}"
        return text


def init_from(
    networks: Mapping[str, nn.Module], source: str | Path | Mapping[str, str | Path], direction: str = "AtoB"
) -> list[Start]:
    """Copy into each network, in place, the tensors whose name and shape fit; returns a report a network.

    Args:
        networks: by their names in the algorithm: G_AB, G_BA, D_A, D_B; G and D for one-way algorithms
        source: a run's folder, a folder of the reference's or CUT's files, one file, or such a path for each network
        direction: of a one-way algorithm, whose G and D count as those of a run in both directions

    Raises InitialError if a name or path is wrong or nothing at all fits, ReferenceFileError for damaged files.
    """
    wanted = source if isinstance(source, Mapping) else dict.fromkeys(networks, source)
    for name in wanted:
        if name not in networks:
            raise InitialError(f"init_from.{name}: no such network; choices: {', '.join(networks)}")
    reports = [
        _start(name, networks[name], Path(path), isinstance(source, Mapping), direction)
        for name, path in wanted.items()
    ]
    if not any(report.loaded for report in reports):
        raise InitialError(f"init_from: nothing in {source} fits: {' | '.join(map(str, reports))}")
    return reports


def find_weights(
    source: Path, network: str, named: bool = False, direction: str = "AtoB"
) -> tuple[Weights, Path] | None:
    """The tensors of a network in a file or folder, and where exactly they were; None if it is not there.

    `named`: the user says that this file is this network, whatever it is called. Generators come as they are shown
    and exported (averaged, if the run averages), the rest from the newest training state.
    """
    if not source.exists():
        raise InitialError(f"init_from: no file or folder {source}")
    role = _role(network, direction)
    if source.is_file():
        return (_read(source), source) if named or _tells(source, role, network) else None
    own = source / f"{GENERATOR_FILES.get(role)}.safetensors"
    if own.is_file():
        return _read(own), own
    if state := newest_state(source):
        theirs = _direction_of(state)
        for name, weights in state_networks(state).items():
            if _role(name, theirs) == role:
                return weights, state
    for name in _reference_names(role, network):
        path = reference_files.find_reference(source, name)
        if path:
            return _read(path), path
    return None


def newest_state(run: Path) -> Path | None:
    """The newest training state in a run's folder."""
    states = [path for path in (run / "state").glob("*/shared.pt") if path.parent.name.isdigit()]
    return max(states, key=lambda path: int(path.parent.name), default=None)


def state_networks(state: Path) -> dict[str, Weights]:
    """The networks in a training state by name. Raises InitialError."""
    try:
        return torch.load(state, map_location="cpu", weights_only=True)["trainer"]["networks"]
    except Exception as error:  # zip, pickle and torch each have their own
        raise InitialError(f"cannot read {state}: {reason_of(error)}") from None


def _start(name: str, network: nn.Module, source: Path, named: bool, direction: str) -> Start:
    found = find_weights(source, name, named, direction)
    if found is None:
        return Start(name, None)
    weights, path = found
    own = network.state_dict()
    left = {key: _misfit(weights.get(key), value) for key, value in own.items()}
    left = {key: reason for key, reason in left.items() if reason}
    loaded = [key for key in own if key not in left]
    network.load_state_dict({**own, **{key: weights[key] for key in loaded}})
    return Start(name, path, loaded, left, [key for key in weights if key not in own])


def _misfit(found: torch.Tensor | None, wanted: torch.Tensor) -> str | None:
    if found is None:
        return "is not there"
    if found.shape != wanted.shape:
        return f"is {tuple(found.shape)} there and {tuple(wanted.shape)} here"
    return None


def _role(network: str, direction: str) -> str:
    return ONE_WAY[direction].get(network, network)


def _direction_of(state: Path) -> str:
    """Of the run that wrote a training state; AtoB where it has both, whose networks are called so."""
    try:
        direction = json.loads(state.with_name("manifest.json").read_text())["config"]["algorithm"].get("direction")
    except (OSError, ValueError, KeyError):
        direction = None
    return direction if direction in ONE_WAY else "AtoB"


def _reference_names(role: str, network: str) -> tuple[str, ...]:
    """A one-way algorithm's G is also what CUT calls so, whatever its direction; our G_AB or D_A is another's there."""
    known = reference_files.REFERENCE_NAMES
    return known[network] if network in known else (*known.get(role, ()), network)


def _tells(path: Path, role: str, network: str) -> bool:
    """Whether a file's name says that it is this network, or says nothing and the network is a generator."""
    if path.stem in GENERATOR_FILES.values():
        return GENERATOR_FILES.get(role) == path.stem
    name = reference_files.named_in(path)
    return name in _reference_names(role, network) if name else role in GENERATOR_FILES


def _read(path: Path) -> Weights:
    if path.suffix in reference_files.SUFFIXES:
        return reference_files.read_weights(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InitialError(f"cannot read {path}: {error}") from None
