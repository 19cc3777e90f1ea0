"""Where a data set keeps its folders, and which files belong together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cyclegan.config import ConfigError, Data
from cyclegan.data.images import find_images
from cyclegan.data.published import SETS

LAYOUTS = ("{split}{domain}", "{split}/{domain}", "{domain}/{split}")
# What tells the domain in names of facades and maps (1_A, 1_B) and of Cityscapes.
MARK = re.compile(r"_(A|B|leftImg8bit|gtFine_color)$")
BOTH_IN_ONE = {"train": ("train",), "test": ("test", "val")}  # where pictures hold both domains, side by side


def find_folder(data: Data, split: str, domain: str) -> Path | None:
    """The folder of one split ("train", "test") of one domain ("A", "B"): as named, else below data.root, else None.

    Where pictures hold both domains side by side, it is the same one for both, and A's if it is named.
    """
    section = data.A if data.side_by_side else getattr(data, domain)
    named = section.train if split == "train" else section.test
    if named is not None:
        return named
    if data.root is None or section.train is not None:
        return None  # of a domain with a training folder of its own, data.root knows nothing
    candidates = [data.root / name for name in _names(data, split, domain)]
    return next((folder for folder in candidates if folder.is_dir()), None)


def find_split(data: Data, split: str) -> dict[str, list[Path]]:
    """The pictures of a split by domain; a domain without a folder is left out.

    Where training pictures are paired, so are the lists. Raises FileNotFoundError for a missing root, a missing
    training folder and for folders without pictures, ConfigError for pictures that have no counterpart, for
    masks of test pictures that are not there, and for a folder of B where A's pictures hold both.
    """
    if data.side_by_side and (named := next((name for name in ("train", "test") if getattr(data.B, name)), None)):
        raise ConfigError(
            f"data.B.{named}: not with data.side_by_side, which takes B from the right halves of A's pictures; "
            "data.side_by_side=false takes a folder for each"
        )
    folders = {domain: find_folder(data, split, domain) for domain in ("A", "B")}
    for domain, folder in folders.items():
        if folder is None and split == "train":
            raise FileNotFoundError(_missing(data, split, domain))
        if folder is None and getattr(data, domain).test_mask:
            raise ConfigError(
                f"data.{domain}.test_mask: {domain} has no test pictures; name their folder as data.{domain}.test"
            )
    files = {
        domain: _images_of(data, split, domain, folder) for domain, folder in folders.items() if folder is not None
    }
    if split == "train" and data.pairing == "paired" and not data.side_by_side:
        files = _paired(files, folders)
    limit = data.limit if split == "train" else None
    return {domain: paths[:limit] for domain, paths in files.items()}


def _images_of(data: Data, split: str, domain: str, folder: Path) -> list[Path]:
    try:
        return find_images(folder)
    except FileNotFoundError as error:
        section = data.A if data.side_by_side else getattr(data, domain)
        named = getattr(section, split, None) is not None
        key = f"data.{'A' if data.side_by_side else domain}.{split}" if named else "data.root"
        raise FileNotFoundError(f"{key}: {error}") from None


def subject(path: Path, folder: Path) -> str:
    """A picture's name below its folder, without suffix and without what tells its domain."""
    return MARK.sub("", path.relative_to(folder).with_suffix("").as_posix())


def distinct_names(files: Sequence[Path], folder: Path | str) -> dict[Path, str]:
    """Each picture's name below its folder: without suffix, but with it where a.jpg lies beside a.png."""
    names = {path: path.relative_to(folder).with_suffix("").as_posix() for path in files}
    while True:
        counts = Counter(names.values())
        whole = {path: path.relative_to(folder).as_posix() for path, name in names.items() if counts[name] > 1}
        if not whole:
            return names
        names |= whole  # whose names may now be those of others: a.jpg is what remains of a.jpg.bmp


def _paired(files: dict[str, list[Path]], folders: dict[str, Path]) -> dict[str, list[Path]]:
    """The same pictures, those of one name at the same place."""
    named = {domain: {subject(path, folders[domain]): path for path in paths} for domain, paths in files.items()}
    for one, other in (("A", "B"), ("B", "A")):
        if len(named[one]) < len(files[one]):
            twice = next(path for path in files[one] if path not in named[one].values())
            raise ConfigError(f"data.pairing: paired, but a second picture in {folders[one]} has the name of {twice}")
        alone = sorted(named[one].keys() - named[other].keys())
        if alone:
            raise ConfigError(
                f"data.pairing: paired, but {len(alone)} of {len(files[one])} pictures in {folders[one]} have none of "
                f"the same name in {folders[other]}: {', '.join(alone[:3])}{' ...' * (len(alone) > 3)}"
            )
    return {domain: [paths[name] for name in sorted(named["A"])] for domain, paths in named.items()}


def _names(data: Data, split: str, domain: str) -> tuple[str, ...]:
    if data.side_by_side:
        return BOTH_IN_ONE[split]
    return tuple(layout.format(split=split, domain=domain) for layout in LAYOUTS)


def _missing(data: Data, split: str, domain: str) -> str:
    if data.root is None:
        return f"data.{domain}.{split}: name a folder of pictures there, or give data.root"
    if not data.root.is_dir():
        published = SETS.get(data.root.name)
        hint = f"; `cyclegan data fetch {published.name}` downloads it" if published and published.mirrors else ""
        return f"data.root: no folder {data.root}{hint or f' in {Path.cwd()}' * (not data.root.is_absolute())}"
    other = data.model_copy(update={"side_by_side": not data.side_by_side})
    there = next((data.root / name for name in _names(other, split, domain) if (data.root / name).is_dir()), None)
    hint = f", or data.side_by_side={str(other.side_by_side).lower()} for {there}" if there else ""
    looked = ", ".join(_names(data, split, domain))
    found = ", ".join(sorted(path.name for path in data.root.iterdir() if path.is_dir())) or "no folders"
    return (
        f"data.root: {data.root} has no {split} folder for domain {domain} (looked for {looked}; found {found}); "
        f"rename it, or name the folder as data.{domain}.{split}{hint}"
    )
