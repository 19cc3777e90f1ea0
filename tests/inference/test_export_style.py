"""Exported graphs that take a style with every picture: the same as the network, and good for `translate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from cyclegan import load_generator, translate
from cyclegan.commands import export, run
from cyclegan.commands import translate as command
from cyclegan.inference.checkpoints.generator_file import GeneratorFileError, save_generator
from cyclegan.inference.deployment.export import ExportError, Options, verify, worst
from cyclegan.inference.deployment.export import export as write
from cyclegan.inference.deployment.exported import open_exported, read_contract
from cyclegan.inference.tiling.tiles import Tiling, TilingError
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from tests.conftest import write_pictures

ABOUT = {"direction": "AtoB", "input": {"channels": 3, "background": "white"}, "output": {"channels": 3}, "run": "x"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator, and graphs of it as they are asked for."""
    folder = tmp_path_factory.mktemp("styled")
    torch.manual_seed(0)
    generator = initialize(build_generator({"name": "adain", "layer": "relu2_1"}), "kaiming", gain=0.7)
    save_generator(folder / "AtoB.safetensors", generator, ABOUT)
    write_pictures(folder / "content", 2, 33)
    write_pictures(folder / "style", 2, 40, seed=5)
    return folder


@pytest.fixture(scope="module")
def exported(source: Path) -> Callable[..., Path]:
    generator = load_generator(source / "AtoB.safetensors")

    def made(suffix: str, format: str, **options) -> Path:
        if format != "torchscript" and torch.__version__ < (2, 13):
            pytest.skip("this torch records no graphs for styles of all sides")
        path = source / f"graph{'-'.join(options)}{suffix}"
        if not path.exists():
            write(generator, path, format, Options(style_input=True, **options))
        return path

    return made


@pytest.mark.parametrize(
    ("suffix", "format", "options"),
    [
        pytest.param(".onnx", "onnx", {}, marks=pytest.mark.slow),
        (".ts", "torchscript", {"pad": True, "uint8": True}),
        pytest.param(".pt2", "pt2", {"pad": True, "uint8": True}, marks=pytest.mark.slow),
    ],
)
def test_graph_is_the_network_for_any_sizes_of_both(
    source: Path, exported: Callable, suffix: str, format: str, options: dict
):
    generator, path = load_generator(source / "AtoB.safetensors"), exported(suffix, format, **options)
    found, allowed = worst(verify(generator, path, [(16, 30), (20, 14)], (1, 3)), read_contract(path))
    assert found < allowed
    contract = read_contract(path)
    assert contract["style"]["sides"] == "any"
    assert contract["style"]["smallest"] == (generator.smallest if format == "torchscript" else 32)
    assert contract["style"]["dtype"] == contract["input"]["dtype"] == ("uint8" if options else "float32")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("linear", "torchscript"),
        ("variational", "torchscript"),
        pytest.param("linear", "onnx", marks=pytest.mark.slow),
        pytest.param("variational", "onnx", marks=pytest.mark.slow),
    ],
)
def test_other_generators_of_content_and_style_export_alike(tmp_path: Path, name: str, format: str):
    small = {"matrix": 4} if name == "linear" else {"size": 4, "width": 4}
    generator = initialize(build_generator({"name": name, "layer": "relu2_1", **small}), "kaiming", gain=0.7)
    save_generator(tmp_path / "AtoB.safetensors", generator, ABOUT)
    generator, path = load_generator(tmp_path / "AtoB.safetensors"), tmp_path / f"graph.{format}"
    write(generator, path, format, Options(style_input=True))
    found, allowed = worst(verify(generator, path, [(16, 30), (20, 14)], (1, 3)), read_contract(path))
    assert found < allowed
    image, style = torch.rand(2, 1, 3, 16, 16)
    assert (generator(image, style) - generator(image, style / 9)).abs().mean() > 1e-3


@pytest.mark.slow
def test_onnx_runtime_alone_gets_what_the_network_gives(source: Path, exported: Callable):
    generator = load_generator(source / "AtoB.safetensors")
    session = onnxruntime.InferenceSession(exported(".onnx", "onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image", "style"]
    draw = torch.Generator().manual_seed(1)
    for content, style in (((1, 3, 18, 26), (1, 3, 32, 32)), ((2, 3, 8, 8), (1, 3, 61, 33))):
        image, style = (torch.rand(shape, generator=draw) * 2 - 1 for shape in (content, style))
        (made,) = session.run(None, {"image": image.numpy(), "style": style.numpy()})
        assert np.abs(made - generator(image, style).numpy()).max() < 1e-4
        assert np.abs(made - generator(image, -style).numpy()).mean() > 1e-3


def test_a_graph_that_does_not_listen_to_its_style_fails_to_verify(source: Path, exported: Callable):
    """The style's share of the deviation counts: beside another strength the same graph is wrong."""
    generator, path = load_generator(source / "AtoB.safetensors"), exported(".ts", "torchscript")
    generator.take_style(strength=0.5)
    found, allowed = worst(verify(generator, path, [(16, 16)], (1,)), read_contract(path))
    assert found > allowed


@pytest.mark.parametrize(
    ("suffix", "format", "options"),
    [pytest.param(".onnx", "onnx", {}, marks=pytest.mark.slow), (".ts", "torchscript", {}), (".pt2", "pt2", {})],
)
def test_translate_with_the_exported_file_and_a_style(
    source: Path, exported: Callable, tmp_path: Path, suffix: str, format: str, options: dict
):
    path, style = exported(suffix, format, **options), source / "style" / "00.png"
    given = [path, source / "content", "-o", tmp_path, "--style", style, "--device", "cpu"]
    assert run("cyclegan translate", command.main, [str(value) for value in given]) == 0
    for name in ("00.png", "01.png"):
        content = Image.open(source / "content" / name)
        ours = translate(source / "AtoB.safetensors", content, style=style, device="cpu", precision="fp32")
        assert np.abs(np.asarray(Image.open(tmp_path / name), int) - np.asarray(ours, int)).max() <= 1
    coloured = [
        translate(file, content, style=style, keep_colours="histogram", device="cpu", precision="fp32")
        for file in (path, source / "AtoB.safetensors")
    ]
    assert np.abs(np.asarray(coloured[0], int) - np.asarray(coloured[1], int)).max() <= 1


def test_what_an_exported_file_cannot_do_is_said(source: Path, exported: Callable):
    path, content = exported(".ts", "torchscript"), Image.open(source / "content" / "00.png")
    one, two = sorted((source / "style").iterdir())
    for words, options in {
        "name one by --style": {},
        "takes one picture": {"style": [one, two]},
        "its strength is inside": {"style": one, "strength": 0.5},
        "own file": {"style": one, "regions": [one]},
        "at least 4 pixels": {"style": np.zeros((3, 9, 3), np.uint8)},
    }.items():
        with pytest.raises(GeneratorFileError, match=words):
            translate(path, content, device="cpu", precision="fp32", **options)
    with pytest.raises(TilingError, match=r"33x33 pixels .* --tiles never"):
        translate(path, content, style=one, tiling=Tiling("thumbnail", above=1), device="cpu")
    with pytest.raises(GeneratorFileError, match="translates AtoB, not BtoA"):
        translate(path, content, direction="BtoA")


def test_damaged_files_and_contracts_are_refused_by_name(exported: Callable, tmp_path: Path):
    path, copy = exported(".ts", "torchscript"), tmp_path / "copy.ts"
    contract, content = Path(f"{path}.json").read_text(), Image.new("RGB", (8, 8))
    for graph, beside, words in (
        (path.read_bytes()[:-9], contract, r"copy\.ts is damaged"),
        (path.read_bytes(), contract[:50], "has no contract"),
        (path.read_bytes(), "{}", "no contract of an exported file"),
        (path.read_bytes(), "[]", "no contract of an exported file"),
    ):
        copy.write_bytes(graph)
        Path(f"{copy}.json").write_text(beside)
        with pytest.raises(ExportError, match=words):
            translate(copy, content)
    with pytest.raises(GeneratorFileError, match=r"no file gone\.onnx"):
        translate("gone.onnx", content)


def test_generators_without_a_style_and_formats_without_a_graph_are_refused(source: Path, tmp_path: Path, capsys):
    given = ["--format", "onnx", "--style-input", "-o", str(tmp_path / "x.onnx")]
    save_generator(tmp_path / "r.safetensors", build_generator({"name": "resnet", "width": 4, "blocks": 1}), ABOUT)
    assert run("cyclegan export", export.main, [str(tmp_path / "r.safetensors"), *given]) == 1
    style = ["--style", str(source / "style" / "00.png")]
    assert run("cyclegan export", export.main, [str(source / "AtoB.safetensors"), *given, *style]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "has a style of its own" in first and "leave --style out" in second
    with pytest.raises(ExportError, match="for graphs"):
        generator = load_generator(source / "AtoB.safetensors")
        write(generator, tmp_path / "x.safetensors", "safetensors", Options(style_input=True))
    with pytest.raises(ExportError, match="has no contract"):
        open_exported(tmp_path / "x.onnx")
