"""Files that `export` wrote: their contracts, running them, and translating with them like with any generator."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cyclegan.errors import UserError
from cyclegan.inference.checkpoints.generator_file import (
    GRAPHS,
    GeneratorFileError,
    load_generator,
    refuse_architecture,
)
from cyclegan.networks.pretrained import sha256_of
from cyclegan.whole_files import open_replacing


class ExportError(UserError, ValueError):
    """An export that cannot be made or does not compute the same; the message says which and what to do."""


class ExportedGenerator(nn.Module):
    """An exported graph in a generator's place: (N, C, H, W) in [-1, 1] -> the same, computed on the CPU in float32.

    One that takes a style wants it by `take_style`, or with the call. Raises ExportError.
    """

    def __init__(self, path: Path | str):
        super().__init__()
        contract = read_contract(path)
        if contract["preprocessing"]["resize_inside"]:
            raise ExportError(f"{path} makes all pictures of one size; export without --resize to translate with it")
        self.run, self.uint8 = open_exported(path), contract["input"]["dtype"] == "uint8"
        self.multiple, self.smallest = contract["input"]["multiple"], contract["input"]["smallest"]
        style = contract.get("style")
        self.takes_style, self.smallest_style = style is not None, (style or {}).get("smallest", 1)
        self.style: Tensor | None = None
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # tells those who ask: float32
        background = contract["preprocessing"]["transparent_on"]
        self.about = {
            "direction": contract["direction"],
            "input": {"channels": contract["input"]["channels"], "background": background},
            "output": {"channels": contract["output"]["channels"]},
            "source": str(path),
            "sha256": contract["sha256"],
        }

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        inputs = [content]
        if self.takes_style:
            style = self.style if style is None else style
            if style is None:
                raise GeneratorFileError(
                    f"{self.about['source']} takes a style with every picture: name one by --style"
                )
            inputs.append(style)
        given = (x.cpu().float().contiguous() for x in inputs)
        with torch.no_grad():
            made = self.run(*(((x + 1) * 127.5).round().to(torch.uint8) if self.uint8 else x for x in given))
        return (made.float() / 127.5 - 1 if self.uint8 else made).to(content.device)

    def take_style(
        self, pictures: Sequence[Tensor] = (), weights: Sequence[float] | None = None, strength: float = 1.0
    ) -> None:
        """The picture that later calls get. Raises ValueError for what only the generator's own file can do."""
        if not self.takes_style:
            raise ValueError("this exported file has one style inside; export it with --style-input")
        if len(pictures) != 1 or weights is not None or strength != 1:
            raise ValueError("an exported file takes one picture, its strength is inside (export --strength)")
        self.style = pictures[0]

    def _apply(self, function: Callable, recurse: bool = True) -> ExportedGenerator:
        return self  # the graph stays where and what it is

    def train(self, mode: bool = True) -> ExportedGenerator:
        return self  # in eval mode already, and torch.export's modules refuse the call

    def __deepcopy__(self, memo: dict) -> ExportedGenerator:
        twin = type(self).__new__(type(self))
        twin.__dict__ = {**self.__dict__, "about": {**self.about}}  # nothing that runs is changed by running
        return twin


def open_generator(
    source: Path | str, direction: str | None = None, architecture: Mapping[str, Any] | None = None
) -> nn.Module:
    """`load_generator`, or an exported graph as a generator. Raises GeneratorFileError and ExportError."""
    if Path(source).suffix not in GRAPHS:
        return load_generator(source, direction, architecture=architecture)
    if not Path(source).is_file():
        raise GeneratorFileError(f"no file {source}")
    refuse_architecture(architecture, Path(source))
    try:
        if sha256_of(source) != read_contract(source)["sha256"]:
            raise ExportError(f"{source} is damaged, or {contract_path(source)} is another file's: export it again")
        generator = ExportedGenerator(source)
    except (KeyError, TypeError) as error:
        raise ExportError(f"{contract_path(source)} is no contract of an exported file, or damaged: {error}") from None
    if direction and generator.about["direction"] != direction:
        raise GeneratorFileError(f"{source} translates {generator.about['direction']}, not {direction}")
    return generator


def open_exported(path: Path | str) -> Callable[..., Tensor]:
    """A function from the input tensor (and a style, where the file takes one) to the output. Raises ExportError."""
    path = Path(path)
    format = read_contract(path)["format"]
    if format == "pt2":
        return torch.export.load(path).module()
    if format == "safetensors":
        generator = load_generator(path)
        return lambda images: generator(images)
    if format == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, that is why it is called legacy
            return torch.jit.load(path)
    session = extra("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})[0])

    return run


def read_contract(path: Path | str) -> dict[str, Any]:
    beside = contract_path(path)
    try:
        return json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} has no contract: {beside}: {error}") from None


def write_contract(path: Path | str, contract: dict[str, Any]) -> dict[str, Any]:
    with open_replacing(contract_path(path)) as file:
        file.write(json.dumps(contract, indent=1).encode())
    return contract


def contract_path(path: Path | str) -> Path:
    return Path(f"{path}.json")


def extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"{error}: this format needs pip install 'cyclegan[export]'") from None
