"""Runs of ours as the reference's files, and the other way round, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cyclegan.errors import UserError
from cyclegan.inference.checkpoints import reference_files
from cyclegan.inference.checkpoints.generator_file import DIRECTIONS, load_generator, save_generator
from cyclegan.inference.checkpoints.initial import newest_state, state_networks
from cyclegan.inference.checkpoints.reference_files import ReferenceFileError, check_writable, write_weights


class ConvertError(UserError, ValueError):
    """Something that cannot be converted; the message names it and says why."""


def to_reference(source: Path | str, output: Path | str, epoch: str = "latest", overwrite: bool = False) -> list[Path]:
    """Write {epoch}_net_{G_A,G_B,D_A,D_B}.pth, which the reference (or CUT) loads strictly.

    Args:
        source: a run's folder, or one generator file
        output: the reference's checkpoints/NAME
        epoch: how the reference shall know them: latest, or a number
        overwrite: replace files that are there

    The generators are those that are shown and exported; discriminators come from the newest training state. A run in
    one direction becomes net_G and net_D. Raises GeneratorFileError, ReferenceFileError and ConvertError.
    """
    source, output = Path(source), Path(output)
    directions = [direction for direction in DIRECTIONS if (source / f"{direction}.safetensors").is_file()]
    generators = [load_generator(source, direction) for direction in directions or [None]]
    networks: dict[str, Mapping] = {}
    for generator in generators:
        check_writable(generator.architecture, generator.about["source"])
        name = {"AtoB": "G_A", "BtoA": "G_B"}[generator.about["direction"]] if len(generators) > 1 else "G"
        networks[name] = generator.state_dict()
    networks |= _discriminators(source, generators[0].about, one_way=len(generators) == 1)
    written = {output / f"{epoch}_net_{name}.pth": weights for name, weights in networks.items()}
    _make_room(output, written, overwrite)
    for path, weights in written.items():
        write_weights(path, weights)
    return list(written)


def from_reference(
    source: Path | str,
    output: Path | str,
    direction: str | None = None,
    epoch: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write AtoB.safetensors and BtoA.safetensors, which describe themselves, from the reference's or CUT's files.

    Args:
        source: one *_net_G*.pth, or a folder of them
        output: a folder
        direction: of a file that does not tell (latest_net_G.pth); AtoB if not given
        epoch: which files of a folder: latest if there are some, else the last number
        architecture: what the files cannot tell, see `load_generator`
        overwrite: replace files that are there

    Discriminators stay where they are: `init_from` reads them there. Raises GeneratorFileError and ConvertError.
    """
    source, output = Path(source), Path(output)
    paths = [source] if source.is_file() else _generator_files(source, epoch)
    if not paths:
        raise ConvertError(f"{source}: no {epoch or '*'}_net_G*.pth in it")
    generators = [load_generator(path, direction, architecture=architecture) for path in paths]
    written = {output / f"{generator.about['direction']}.safetensors": generator for generator in generators}
    _make_room(output, written, overwrite)
    for path, generator in written.items():
        save_generator(path, generator, generator.about)
    return list(written)


def is_reference(source: Path | str) -> bool:
    """Whether `source` is a file or folder of the reference's."""
    source = Path(source)
    return source.suffix in reference_files.SUFFIXES or bool(_generator_files(source, None))


def _make_room(folder: Path, files: Iterable[Path], overwrite: bool) -> None:
    """Make the folder. Raises ConvertError if one of the files is there: they may be somebody's only copy."""
    if not overwrite and (there := next((path for path in files if path.exists()), None)):
        raise ConvertError(f"{there} is there already; choose another folder, or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)


def _generator_files(folder: Path, epoch: str | None) -> list[Path]:
    found = {name: reference_files.find_reference(folder, name, epoch) for name in reference_files.DIRECTIONS}
    pair = [path for name, path in found.items() if path and name != "G"]
    return pair or [path for path in [found["G"]] if path]


def _discriminators(source: Path, about: Mapping[str, Any], one_way: bool) -> dict[str, Mapping]:
    state = newest_state(source) if source.is_dir() else None
    if state is None:
        return {}
    # Theirs are named after generators.
    names = {"D": "D", "D_B": "D", "D_A": "D"} if one_way else {"D_B": "D_A", "D_A": "D_B"}
    found = {theirs: weights for ours, weights in state_networks(state).items() if (theirs := names.get(ours))}
    if found:
        check_writable(about.get("config", {}).get("discriminator", {"name": "patch"}), f"{state}, discriminators")
    for name, weights in found.items():
        if any("parametrizations" in key for key in weights):
            raise ReferenceFileError(f"{state}: the reference has no {name} with spectral normalisation")
    return {
        name: {key: value for key, value in weights.items() if not key.startswith("diffaugment.")}
        for name, weights in found.items()
    }
