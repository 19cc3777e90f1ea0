"""`translate` and `export` of generators that take a style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.commands import export, run, translate
from cyclegan.inference.checkpoints.generator_file import load_generator, save_generator
from cyclegan.inference.files import translate as translate_files
from cyclegan.inference.work_list import WorkListError
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from tests.conftest import write_pictures

ABOUT = {"direction": "AtoB", "input": {"channels": 3, "background": "white"}, "output": {"channels": 3}, "run": "x"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    generator = initialize(build_generator({"name": "adain", "layer": "relu2_1"}), "kaiming")
    save_generator(tmp_path / "AtoB.safetensors", generator, ABOUT)
    write_pictures(tmp_path / "content", 2)
    write_pictures(tmp_path / "style", 2, seed=5)
    return tmp_path


def translated(source: Path, name: str, *more: str | Path) -> np.ndarray:
    given = [source / "AtoB.safetensors", source / "content", "-o", source / name, "--device", "cpu", *more]
    given += ["--precision", "fp32"]
    assert run("cyclegan translate", translate.main, [str(value) for value in given]) == 0
    return np.asarray(Image.open(source / name / "00.png"), dtype=float)


def test_translate_takes_styles_weights_and_strength(source: Path):
    one, two = sorted((source / "style").iterdir())
    first, second = translated(source, "first", "--style", one), translated(source, "second", "--style", two)
    assert np.abs(first - second).mean() > 1
    heavy = translated(source, "heavy", "--style", one, two, "--style-weights", "1", "0")
    assert np.array_equal(heavy, first)
    mixed = translated(source, "mixed", "--style", one, two)
    assert 0 < np.abs(mixed - first).mean() < np.abs(second - first).mean()
    none = [translated(source, f"none{n}", "--style", style, "--strength", "0") for n, style in enumerate((one, two))]
    assert np.array_equal(*none)


def test_results_of_two_styles_do_not_get_mixed_in_a_folder(source: Path, capsys):
    one, two = sorted((source / "style").iterdir())
    translated(source, "out", "--style", one)
    translated(source, "out", "--style", one)
    given = [source / "AtoB.safetensors", source / "content", "-o", source / "out", "--style", two, "--device", "cpu"]
    assert run("cyclegan translate", translate.main, [str(value) for value in given]) == 1
    assert "holds translations by another generator" in capsys.readouterr().err


def test_an_exported_file_keeps_the_style(source: Path):
    style = next((source / "style").iterdir())
    given = [source / "AtoB.safetensors", "--format", "pt2", "-o", source / "x.pt2", "--style", style]
    assert run("cyclegan export", export.main, [str(value) for value in given]) == 0
    generator = load_generator(source / "AtoB.safetensors")
    image = torch.rand(1, 3, 32, 40) * 2 - 1
    unstyled = generator(image)
    generator.take_style([torch.from_numpy(np.array(Image.open(style))).permute(2, 0, 1)[None] / 127.5 - 1])
    found = torch.export.load(source / "x.pt2").module()(image)
    assert torch.allclose(found, generator(image), atol=1e-4) and not torch.allclose(found, unstyled, atol=1e-2)


def test_max_pixels_holds_for_styles_as_for_contents(source: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    given = [source / "AtoB.safetensors", source / "content", "-o", source / "out", "--device", "cpu"]
    given += ["--style", source / "style" / "00.png"]
    assert run("cyclegan translate", translate.main, [str(value) for value in given]) == 0
    assert capsys.readouterr().err.startswith("2 translated")


def test_strength_1_is_more_than_what_a_file_keeps(source: Path):
    style, own = next((source / "style").iterdir()), source / "AtoB.safetensors"
    whole, half = translated(source, "whole", "--style", style), source / "half.safetensors"
    given = [own, "--format", "safetensors", "-o", half, "--style", style, "--strength", "0.5"]
    assert run("cyclegan export", export.main, [str(value) for value in given]) == 0
    half.replace(own)
    assert not np.array_equal(translated(source, "kept"), whole)
    assert np.array_equal(translated(source, "one", "--strength", "1"), whole)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--strength", "1.5"], "translate: --strength: 0 to 1 expected, found 1.5"),
        (
            ["--style", "STYLE", "--style-weights", "1", "2"],
            "--style-weights: one, at least 0 and finite, for each of 1",
        ),
        (["--style", "gone.png"], "gone.png"),
        (["--style", "."], ". is a folder: name the pictures whose style it shall be"),
        (["--style", "STYLE", "-o", "STYLE", "--overwrite"], "which it is made from; choose another output"),
    ],
)
def test_a_mistake_is_one_line(source: Path, more: list[str], words: str, capsys):
    style = str(next((source / "style").iterdir()))
    content = str(source / "content" / "00.png")
    given = [str(source / "AtoB.safetensors"), content, "-o", str(source / "out"), "--device", "cpu"]
    given += [style if value == "STYLE" else value for value in more]
    assert run("cyclegan translate", translate.main, given) == 1
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_no_style_is_overwritten_from_python_or_standard_input(source: Path, capsys):
    own, style, content = source / "AtoB.safetensors", source / "style" / "00.png", source / "content" / "00.png"
    before = style.read_bytes()
    with pytest.raises(WorkListError, match="which it is made from; choose another output"):
        translate_files(own, content, style, style=style, device="cpu")
    given = [own, "-", "-o", style, "--style", style, "--device", "cpu"]
    assert run("cyclegan translate", translate.main, [str(value) for value in given]) == 1
    assert "which it is made from; choose another output" in capsys.readouterr().err and style.read_bytes() == before


def test_other_generators_take_no_style(source: Path, capsys):
    torch.manual_seed(0)
    save_generator(source / "r.safetensors", build_generator({"name": "resnet", "width": 4, "blocks": 1}), ABOUT)
    given = [source / "r.safetensors", source / "content", "-o", source / "o", "--style", source / "style" / "00.png"]
    assert run("cyclegan translate", translate.main, [str(value) for value in given]) == 1
    assert "only those of adain" in capsys.readouterr().err
