"""Generators from files: ours, which describe themselves, the reference's and CUT's, and folders of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cyclegan.errors import UserError, reason_of
from cyclegan.inference.checkpoints import reference_files
from cyclegan.inference.checkpoints.reference_files import ReferenceFileError
from cyclegan.networks import GENERATORS, build_generator
from cyclegan.networks.pretrained import sha256_of
from cyclegan.whole_files import open_replacing

KEY, FORMAT = "cyclegan", 1
DIRECTIONS = ("AtoB", "BtoA")
GRAPHS = (".pt2", ".onnx", ".ts")  # that `export` wrote and `open_generator` opens
HUB_PREFIX = "generator."  # of the names in a Hugging Face folder, whose model holds the generator


class GeneratorFileError(UserError, ValueError):
    """A generator that cannot be loaded; the message names the file, what was found and what to do."""


def save_generator(path: Path | str, generator: nn.Module, about: dict[str, Any]) -> None:
    """Write a generator atomically.

    Args:
        path: the file, by convention AtoB.safetensors or BtoA.safetensors
        generator: a network from `build_generator`, which carries its architecture
        about: what else the file should tell, in JSON's types: "direction", "input" and "output" (channels and
            background of the pictures), "run", "images" …
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    card = {**about, "format": FORMAT, "architecture": generator.architecture}
    with open_replacing(path) as file:
        file.write(save(weights, metadata={KEY: json.dumps(card)}))


def load_generator(
    source: Path | str,
    direction: str | None = None,
    device: torch.device | str = "cpu",
    architecture: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A trained generator, ready to use: (N, C, H, W) in [-1, 1] -> the same, in eval mode.

    Args:
        source: a generator file (*.safetensors), a checkpoint of the reference or of CUT (*_net_G*.pth), a folder of
            those (a run's, or checkpoints/NAME), or a folder in the Hugging Face layout
        direction: "AtoB" or "BtoA"; needed where `source` has both. A file that does not tell (latest_net_G.pth)
            counts as AtoB
        device: where to put it
        architecture: for *.pth, what their names and shapes don't tell or tell wrongly, e.g. {"padding": "zero"}

    Returns a network that also has `about`, a description: direction, architecture, input, output, source, sha256 …
    Raises GeneratorFileError.
    """
    if direction not in (None, *DIRECTIONS):
        raise GeneratorFileError(f"no direction {direction!r}; there are {' and '.join(DIRECTIONS)}")
    path = find_generator(Path(source), direction)
    if path.suffix in GRAPHS:
        raise GeneratorFileError(f"{path} is an exported graph; name the generator's own file (*.safetensors)")
    try:
        if path.suffix in reference_files.SUFFIXES:
            weights, about = _read_reference(path, direction, architecture or {})
        else:
            refuse_architecture(architecture, path)
            weights, about = _read_own(path)
    except (ReferenceFileError, SafetensorError, OSError) as error:
        raise GeneratorFileError(str(error) if str(path) in str(error) else f"cannot read {path}: {error}") from None
    if direction and about.get("direction") != direction:
        raise GeneratorFileError(f"{path} translates {about.get('direction')}, not {direction}")
    generator = generator_from(about["architecture"], weights, path).to(device)
    generator.about = {**about, "source": str(path), "sha256": sha256_of(path)}
    return generator.eval().requires_grad_(False)


def find_generator(source: Path, direction: str | None = None) -> Path:
    """The generator file that `source` (a file or a folder) and `direction` mean. Raises GeneratorFileError."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise GeneratorFileError(f"no file or folder {source}")
    found = {path.stem: path for path in sorted(source.glob("*.safetensors")) if path.stem in DIRECTIONS}
    found = found or _found_reference(source)
    if not found and (source / "model.safetensors").is_file() and (source / "config.json").is_file():
        return source / "model.safetensors"
    if direction is None and len(set(found.values())) == 1:
        return next(iter(found.values()))
    if direction in found:
        return found[direction]
    names = ", ".join(path.name for path in found.values())
    if found:
        raise GeneratorFileError(f"{source}: found {names}; give the direction {' or '.join(found)}")
    raise GeneratorFileError(
        f"{source}: no AtoB.safetensors, BtoA.safetensors or *_net_G*.pth in it; is it the folder of a run that saved?"
    )


def generator_from(architecture: Mapping[str, Any], weights: Mapping[str, Tensor], where: Path | str) -> nn.Module:
    """A generator with these weights, every name and shape checked before anything is allocated.

    Raises GeneratorFileError.
    """
    largest = max([1024, *(side for value in weights.values() for side in value.shape)])
    if any(isinstance(value, int) and value > largest for value in architecture.values()):
        raise GeneratorFileError(f"{where} describes a network much larger than its weights: {dict(architecture)}")
    try:
        with torch.device("meta"):
            generator = build_generator(dict(architecture))
    except Exception as error:  # torch has its own for sizes beyond what it can count
        known = ", ".join(GENERATORS)
        reason = reason_of(error)
        raise GeneratorFileError(f"{where}: cannot build {dict(architecture)}: {reason} (networks: {known})") from None
    if architecture.get("norm") == "none":
        weights = _with_biases(weights, generator.state_dict())
    _check_fit(generator, weights, where)
    generator.load_state_dict(weights, assign=True)
    return generator


def refuse_architecture(architecture: Mapping[str, Any] | None, path: Path) -> None:
    """Raises GeneratorFileError for what a file tells itself."""
    if architecture:
        given = ", ".join(f"{key}={value}" for key, value in architecture.items())
        raise GeneratorFileError(f"{path} tells its architecture itself; leave out {given}")


def _found_reference(folder: Path) -> dict[str, Path]:
    """Reference files by direction; a lone G serves both."""
    pair = {
        "AtoB": reference_files.find_reference(folder, "G_A"),
        "BtoA": reference_files.find_reference(folder, "G_B"),
    }
    found = {direction: path for direction, path in pair.items() if path}
    alone = reference_files.find_reference(folder, "G")
    return found or (dict.fromkeys(DIRECTIONS, alone) if alone else {})


def _read_own(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        card = (file.metadata() or {}).get(KEY)
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    beside = path.with_name("config.json")
    if card is None and path.name == "model.safetensors" and beside.is_file():
        card = beside.read_text(encoding="utf-8")
        weights = {name.removeprefix(HUB_PREFIX): value for name, value in weights.items()}
    return weights, _description(card, path)


def _description(card: str | None, path: Path) -> dict[str, Any]:
    try:
        about = json.loads(card or "null")
    except ValueError:
        about = None
    about = about.get("about", about) if isinstance(about, dict) else about
    if not (isinstance(about, dict) and isinstance(about.get("architecture"), dict)):
        raise GeneratorFileError(f"{path} holds weights but not our description of a generator")
    if not isinstance(about.get("format", FORMAT), int):
        raise GeneratorFileError(f"{path}: format {about['format']!r} is no number; it is not by cyclegan, or damaged")
    if about.get("format", FORMAT) > FORMAT:
        raise GeneratorFileError(f"{path} was written by a newer version (format {about['format']}); update cyclegan")
    return about


def _read_reference(
    path: Path, direction: str | None, given: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    weights = reference_files.read_weights(path)
    architecture = {**reference_files.infer_architecture(weights, path), **given}
    told = reference_files.DIRECTIONS.get(reference_files.named_in(path))
    return weights, {
        "architecture": architecture,
        "direction": told or direction or "AtoB",
        "input": {"channels": architecture["in_channels"], "background": "white"},
        "output": {"channels": architecture["out_channels"], "background": "white"},
    }


def _with_biases(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without a norm layer ours has biases and the reference has none: zeros are the same."""
    absent = [name for name in wanted if name.endswith(".bias") and name not in weights]
    return {**weights, **{name: torch.zeros(wanted[name].shape) for name in absent}}


def _check_fit(network: nn.Module, weights: Mapping[str, Tensor], where: Path | str) -> None:
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = [
        f"{name} is {found.get(name, 'missing')}, not {shape}"
        for name, shape in wanted.items()
        if found.get(name) != shape and not name.endswith("num_batches_tracked")  # torch < 0.4.1 did not count
    ]
    wrong += [f"{name} is not expected" for name in found if name not in wanted]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise GeneratorFileError(f"{where} does not fit {network.architecture}: {'; '.join(wrong[:3])}{more}")
