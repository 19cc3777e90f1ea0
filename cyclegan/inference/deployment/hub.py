"""A generator as a Hugging Face folder: model.safetensors, config.json and a card; no network needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from cyclegan.errors import UserError, reason_of
from cyclegan.inference.translate import translate_tensor
from cyclegan.networks import build_generator


class HubError(UserError, ValueError):
    """A folder that cannot be written; the message says why."""


class TranslationModel(nn.Module, PyTorchModelHubMixin, library_name="cyclegan", tags=["image-to-image", "cyclegan"]):
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
) -> Path:
    """Write what `TranslationModel.from_pretrained` and `load_generator` read.

    Args:
        generator: from `load_generator`
        folder: where to
        metrics: numbers for the card, by name; nested ones get dotted names. Of a scores.json of test.py, those of the
            translations of the generator's direction
        picture: an image file for the card
        push_to: also upload to this repository ("user/name"), which needs the network and a login

    Raises HubError.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if picture is not None:
        if not Path(picture).is_file():
            raise HubError(f"no picture {picture}")
        picture = Path(shutil.copyfile(picture, folder / f"picture{Path(picture).suffix.lower()}"))
    about = _without_places({**generator.about, "architecture": generator.architecture})
    numbers = _numbers(_of_direction(metrics or {}, about.get("direction")))
    (folder / "README.md").write_text(_card(about, numbers, picture), encoding="utf-8")
    model = TranslationModel(about=about)
    model.generator.load_state_dict(generator.state_dict())
    model.save_pretrained(folder)
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


def _card(about: Mapping[str, Any], metrics: Mapping[str, float], picture: Path | None) -> str:
    name = about.get("run") or "generator"
    lines = ["---", "library_name: cyclegan", "pipeline_tag: image-to-image", "tags: [image-to-image, cyclegan]", "---"]
    lines += [f"# {name}, {about.get('direction') or 'one direction'}", ""]
    lines += [f"![translations](./{picture.name})", ""] if picture else []
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
