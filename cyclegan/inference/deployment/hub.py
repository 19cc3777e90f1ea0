"""A generator as a Hugging Face folder: model.safetensors, config.json and a card; no network needed."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from cyclegan.errors import UserError, reason_of
from cyclegan.inference.translate import translate_tensor
from cyclegan.networks import build_generator
from cyclegan.whole_files import open_replacing

LIBRARY = "cyclegan"
FILES = ("README.md", "config.json", "model.safetensors")


class HubError(UserError, ValueError):
    """A folder that cannot be written; the message says why."""


class TranslationModel(nn.Module, PyTorchModelHubMixin, library_name=LIBRARY, tags=["image-to-image", "cyclegan"]):
    """(N, C, H, W) in [-1, 1] -> the same, for sides of any length; from_pretrained and push_to_hub are the mixin's.

    Args:
        about: the generator's description, with its architecture; it becomes config.json
    """

    def __init__(self, about: dict[str, Any]):
        super().__init__()
        self.generator = build_generator(about["architecture"])
        self.generator.about = about
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return translate_tensor(self.generator, images)


def write_hub_folder(
    generator: nn.Module,
    folder: Path | str,
    metrics: Mapping[str, Any] | None = None,
    picture: Path | str | None = None,
    push_to: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write what `TranslationModel.from_pretrained` and `load_generator` read.

    Args:
        generator: from `load_generator`
        folder: where to
        metrics: numbers for the card, by name; nested ones get dotted names. Of a scores.json of test.py, those of the
            translations of the generator's direction
        picture: an image file for the card
        push_to: also upload to this repository ("user/name"), which needs the network and a login
        overwrite: replace files of the same names that no earlier export wrote

    Raises HubError.
    """
    folder = Path(folder)
    if picture is not None and not Path(picture).is_file():
        raise HubError(f"no picture {picture}")
    shown = None if picture is None else f"picture{Path(picture).suffix.lower()}"
    if not overwrite:
        _refuse_strangers(folder, [*FILES, *filter(None, [shown])])
    folder.mkdir(parents=True, exist_ok=True)
    about = _without_places({**generator.about, "architecture": generator.architecture})
    numbers = _numbers(_of_direction(metrics or {}, about.get("direction")))
    model = TranslationModel(about=about)
    model.generator.load_state_dict(generator.state_dict())
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "README.md").write_text(_card(about, numbers, shown), encoding="utf-8")
        model.save_pretrained(made)
        for name in FILES:
            _copy(Path(made) / name, folder / name)
    if picture is not None:
        _copy(Path(picture), folder / shown)
    if push_to:
        _push(folder, push_to)
    return folder


def read_metrics(path: Path | str) -> dict[str, Any]:
    """Raises HubError."""
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HubError(f"cannot read metrics from {path}: {error}") from None
    if not isinstance(metrics, dict):
        raise HubError(f"{path}: names with numbers expected, found a {type(metrics).__name__}")
    return metrics


def _refuse_strangers(folder: Path, names: list[str]) -> None:
    """Raises HubError for a file in the way that no export of ours wrote."""
    ours = _exported_names(folder)
    if there := next((folder / name for name in names if name not in ours and (folder / name).exists()), None):
        raise HubError(f"{there} is there, and not from an export; choose another folder, or --overwrite")


def _exported_names(folder: Path) -> set[str]:
    """The files of an earlier export, if the folder's card and config.json tell of one."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8")
        json.loads((folder / "config.json").read_text(encoding="utf-8"))["about"]["architecture"]
    except (OSError, ValueError, LookupError, TypeError):
        return set()
    if f"library_name: {LIBRARY}" not in card:
        return set()
    return {*FILES, *re.findall(r"\(\./(picture[.\w]*)\)", card)}


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, open_replacing(target) as file:
        shutil.copyfileobj(read, file)


def _push(folder: Path, repository: str) -> None:
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repository, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # of the network, the login, the name
        raise HubError(f"{folder} is written, but not uploaded to {repository}: {reason_of(error)}") from None


def _of_direction(metrics: Mapping[str, Any], direction: str | None) -> Mapping[str, Any]:
    own = metrics.get(direction)
    if not (isinstance(own, Mapping) and isinstance(own.get("scores"), Mapping)):
        return metrics
    return {name: values["translated"] for name, values in own["scores"].items()} | {"images": own.get("images")}


def _without_places(about: Any) -> Any:
    """The same without the folders of the machine it was trained on: of absolute paths the last name."""
    if isinstance(about, Mapping):
        return {key: _without_places(value) for key, value in about.items()}
    if isinstance(about, list):
        return [_without_places(value) for value in about]
    return Path(about).name if isinstance(about, str) and Path(about).is_absolute() else about


def _numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = value
    return found


def _card(about: Mapping[str, Any], metrics: Mapping[str, float], picture: str | None) -> str:
    name = about.get("run") or "generator"
    lines = [
        "---",
        f"library_name: {LIBRARY}",
        "pipeline_tag: image-to-image",
        "tags: [image-to-image, cyclegan]",
        "---",
    ]
    lines += [f"# {name}, {about.get('direction') or 'one direction'}", ""]
    lines += [f"![translations](./{picture})", ""] if picture else []
    lines += [f"Unpaired image-to-image translation; {about['architecture']['name']} generator.", ""]
    if metrics:
        lines += [
            "| metric | value |",
            "|---|---|",
            *(f"| {key} | {value:.6g} |" for key, value in metrics.items()),
            "",
        ]
    lines += ["```python", "from cyclegan import load_generator, translate", "", 'generator = load_generator("FOLDER")']
    lines += ['picture = translate(generator, "photo.jpg")', "```", ""]
    rows = {"images seen in training": about.get("images"), "sha256 of the source": about.get("sha256")}
    lines += [f"- {key}: {value}" for key, value in rows.items() if value]
    lines += [f"- architecture: `{json.dumps(about['architecture'])}`", ""]
    return "\n".join(lines)
