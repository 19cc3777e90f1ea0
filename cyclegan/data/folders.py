"""Where a data set keeps its four folders."""

from __future__ import annotations

from pathlib import Path

from cyclegan.config import Data
from cyclegan.data.images import find_images

LAYOUTS = ("{split}{domain}", "{split}/{domain}", "{domain}/{split}")


def find_folder(data: Data, split: str, domain: str) -> Path | None:
    """The folder of one split ("train", "test") of one domain ("A", "B"): as named, else below data.root, else None."""
    named = getattr(data, domain).train if split == "train" else getattr(data, domain).test
    if named is not None:
        return named
    if data.root is None or getattr(data, domain).train is not None:
        return None  # of a domain with a training folder of its own, data.root knows nothing
    candidates = [data.root / layout.format(split=split, domain=domain) for layout in LAYOUTS]
    return next((folder for folder in candidates if folder.is_dir()), None)


def find_split(data: Data, split: str) -> dict[str, list[Path]]:
    """The pictures of a split by domain; a domain without a folder is left out.

    Raises FileNotFoundError for a missing root, a missing training folder and for folders without pictures.
    """
    folders = {domain: find_folder(data, split, domain) for domain in ("A", "B")}
    for domain, folder in folders.items():
        if folder is None and split == "train":
            raise FileNotFoundError(_missing(data, split, domain))
    limit = data.limit if split == "train" else None
    return {domain: find_images(folder)[:limit] for domain, folder in folders.items() if folder is not None}


def _missing(data: Data, split: str, domain: str) -> str:
    if data.root is None:
        return f"data.{domain}.{split}: name a folder of pictures there, or give data.root"
    if not data.root.is_dir():
        hint = f"; `cyclegan data fetch {data.root.name}` downloads the published sets"
        return f"data.root: no folder {data.root}{hint}"
    looked = ", ".join(layout.format(split=split, domain=domain) for layout in LAYOUTS)
    found = ", ".join(sorted(path.name for path in data.root.iterdir() if path.is_dir())) or "no folders"
    return (
        f"data.root: {data.root} has no {split} folder for domain {domain} (looked for {looked}; found {found}); "
        f"rename it, or name the folder as data.{domain}.{split}"
    )
