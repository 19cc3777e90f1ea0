"""Colours and regions of content and style, on the command line and from Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cyclegan import load_generator, take_style, translate
from cyclegan.commands import run
from cyclegan.commands import translate as command
from cyclegan.data.images import ImageError
from cyclegan.inference import colour
from cyclegan.inference.checkpoints.generator_file import GeneratorFileError, save_generator
from cyclegan.inference.colour import brightness_matched, recoloured
from cyclegan.inference.styling import read_style, shares_of
from cyclegan.inference.tiling.tiles import Tiling, TilingError
from cyclegan.losses.structure import luminance
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from tests.conftest import write_pictures

ABOUT = {"direction": "AtoB", "input": {"channels": 3, "background": "white"}, "output": {"channels": 3}, "run": "x"}
SIDE = 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A generator, two contents and two styles; masks of the left third and the right third."""
    torch.manual_seed(0)
    generator = initialize(build_generator({"name": "adain", "layer": "relu2_1"}), "kaiming", gain=0.7)
    save_generator(tmp_path / "AtoB.safetensors", generator, ABOUT)
    write_pictures(tmp_path / "content", 2, SIDE)
    write_pictures(tmp_path / "style", 2, seed=5)
    for name, columns in (("left", slice(0, 22)), ("right", slice(42, 64))):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, columns] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def paint(source: Path) -> Callable[..., np.ndarray]:
    """The first content by `translate` as (h, w, 3) in [-1, 1], from a PIL image."""

    def made(**options) -> np.ndarray:
        content = Image.open(source / "content" / "00.png")
        translated = translate(source / "AtoB.safetensors", content, device="cpu", precision="fp32", **options)
        return np.asarray(translated, np.float32) / 127.5 - 1

    return made


def styles(source: Path) -> list[Path]:
    return sorted((source / "style").iterdir())


def test_colours_are_computed_where_there_is_double_precision(monkeypatch: pytest.MonkeyPatch):
    """Which Apple's GPUs do not have: nothing but `as_double` may ask for it."""
    style, content = torch.rand(2, 1, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = recoloured(style, content)

    def refuse(_: Tensor) -> Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64")

    monkeypatch.setattr(torch.Tensor, "double", refuse)
    monkeypatch.setattr(colour, "as_double", lambda x: x.cpu().to(torch.float64), raising=False)
    assert torch.equal(recoloured(style, content), expected)


def direct(source: Path, style: Tensor, content: Tensor | None = None) -> np.ndarray:
    """By the network itself."""
    generator = load_generator(source / "AtoB.safetensors")
    content = read_style(source / "content" / "00.png") if content is None else content
    with torch.no_grad():
        return generator(content, style)[0].permute(1, 2, 0).numpy()


def test_a_style_in_memory_is_that_of_its_file(source: Path, paint: Callable):
    path = styles(source)[0]
    picture = Image.open(path)
    from_file = paint(style=path)
    assert np.abs(from_file - direct(source, read_style(path))).max() < 0.01
    assert np.array_equal(paint(style=picture), from_file)
    assert np.array_equal(paint(style=[np.asarray(picture)], style_weights=[3.0]), from_file)
    generator = load_generator(source / "AtoB.safetensors")
    take_style(generator, picture, strength=0.0)
    content = read_style(source / "content" / "00.png")
    assert torch.equal(generator(content), generator(content, read_style(styles(source)[1])))  # nothing of either


def test_a_large_style_is_shrunk_before_it_is_encoded(source: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (80, 40), (255, 0, 0)).save(source / "large.png")
    assert read_style(source / "large.png").shape == (1, 3, 40, 80)
    monkeypatch.setattr("cyclegan.inference.styling.LARGEST", 800)
    small = read_style(source / "large.png")
    assert small.shape == (1, 3, 20, 40) and torch.allclose(small[0, :, 0, 0], torch.tensor([1.0, -1.0, -1.0]))


def test_translate_leaves_the_callers_generator_as_it_is(source: Path):
    generator = load_generator(source / "AtoB.safetensors")
    before, content = [value.clone() for value in generator.kept()], Image.open(source / "content" / "00.png")
    translate(generator, content, style=styles(source)[0], keep_colours="luminance", device="cpu", precision="fp32")
    assert all(torch.equal(*both) for both in zip(before, generator.kept(), strict=True))
    assert "style" not in generator.about


@pytest.mark.parametrize("weights", [(2, 1), np.float32([2, 1])])
def test_weights_and_strengths_of_any_kind_are_the_same_style_next_time(source: Path, weights):
    given = (source / "AtoB.safetensors", source / "content", source / "out")
    options = {"style": styles(source), "style_weights": weights, "strength": np.float32(0.5)}
    assert len(translate(*given, **options).done) == 2
    assert len(translate(*given, **options).skipped) == 2
    assert len(translate(*given, **{**options, "style_weights": [2, 1], "strength": 0.5}).skipped) == 2


def test_histogram_gives_the_style_the_contents_colours_first(source: Path, paint: Callable):
    style, content = read_style(styles(source)[0]), read_style(source / "content" / "00.png")
    expected = direct(source, recoloured(style, content))
    assert np.abs(paint(style=styles(source)[0], keep_colours="histogram") - expected).max() < 0.01
    assert np.abs(paint(style=styles(source)[0]) - expected).mean() > 0.02


def test_luminance_paints_brightness_alone(source: Path, paint: Callable):
    content = read_style(source / "content" / "00.png")
    style = brightness_matched(read_style(styles(source)[0]), content).expand(-1, 3, -1, -1)
    grey = direct(source, style, luminance(content).expand_as(content))
    made = paint(style=styles(source)[0], keep_colours="luminance")
    wanted = torch.from_numpy(grey).permute(2, 0, 1)[None]
    found, inside = torch.from_numpy(made).permute(2, 0, 1)[None], np.abs(made).max(2) < 0.99
    assert inside.mean() > 0.3
    assert (luminance(found) - luminance(wanted))[0, 0].abs().numpy()[inside].max() < 0.02
    chroma = [picture[:, :2] - picture[:, 1:] for picture in (found, content)]
    assert (chroma[0] - chroma[1])[0].abs().amax(0).numpy()[inside].max() < 0.02
    kept = paint(keep_colours="luminance")  # of the style that the generator keeps
    assert kept.shape == made.shape and not np.array_equal(kept, made)


@pytest.mark.parametrize("colours", ["histogram", "luminance"])
def test_a_content_of_one_pixel_keeps_its_colour(source: Path, colours: str, recwarn: pytest.WarningsRecorder):
    content, style = torch.tensor([0.5, -0.25, 0.0]).view(1, 3, 1, 1), read_style(styles(source)[0])
    made = recoloured(style, content) if colours == "histogram" else brightness_matched(style, content)
    wanted = content if colours == "histogram" else luminance(content)
    assert torch.allclose(made.mean((2, 3)), wanted[..., 0, 0], atol=1e-4)
    painted = translate(
        source / "AtoB.safetensors", np.zeros((1, 1, 3), np.uint8), style=styles(source)[0], keep_colours=colours
    )
    assert painted.shape == (1, 1, 3) and not recwarn


def test_each_style_goes_where_its_mask_is_white_and_nothing_elsewhere(source: Path, paint: Callable):
    one, two = styles(source)
    made = paint(style=[one, two], regions=[source / "left.png", source / "right.png"])
    # a place of the decoder's input is seen by less than 8 pixels around it
    assert np.abs(made[:, :14] - paint(style=one)[:, :14]).max() < 0.01
    assert np.abs(made[:, -14:] - paint(style=two)[:, -14:]).max() < 0.01
    assert np.abs(made[:, 31:33] - paint(style=one, strength=0.0)[:, 31:33]).max() < 0.01
    assert np.abs(paint(style=one) - paint(style=two)).mean() > 0.05


def test_shares_are_weighted_where_masks_overlap_and_fade_with_them():
    masks = torch.tensor([[1.0, 0.0, 1.0, 0.5, 0.0], [0.0, 1.0, 1.0, 0.0, 0.0]]).view(1, 2, 1, 5)
    one, two = (share.flatten().tolist() for share in shares_of(masks, [3.0, 1.0]))
    assert one == pytest.approx([1, 0, 0.75, 0.5, 0]) and two == pytest.approx([0, 1, 0.25, 0, 0])


def test_command_takes_a_mask_for_all_or_a_folder_of_masks(source: Path):
    for name in ("00", "01"):
        (source / "masks").mkdir(exist_ok=True)
        Image.open(source / "left.png").save(source / "masks" / f"{name}.png")
    given = [source / "AtoB.safetensors", source / "content", "--device", "cpu", "--style", *styles(source)]
    for out, place in (("files", source / "left.png"), ("folders", source / "masks")):
        region = ["--region", place, source / "right.png", "-o", source / out, "--keep-colours", "histogram"]
        assert run("cyclegan translate", command.main, [str(value) for value in [*given, *region]]) == 0
    for name in ("00.png", "01.png"):
        assert (source / "files" / name).read_bytes() == (source / "folders" / name).read_bytes()


def test_one_picture_finds_its_mask_in_a_folder_without_an_output_too(source: Path, paint: Callable):
    (source / "masks").mkdir()
    (source / "masks" / "00.png").write_bytes((source / "left.png").read_bytes())
    given = {"style": styles(source)[0], "regions": source / "masks", "device": "cpu", "precision": "fp32"}
    made = translate(source / "AtoB.safetensors", source / "content" / "00.png", **given)
    expected = paint(style=styles(source)[0], regions=[source / "left.png"])
    assert np.array_equal(np.asarray(made, np.float32) / 127.5 - 1, expected)


def test_results_are_not_kept_when_a_region_changes(source: Path, capsys):
    masks, out = source / "masks", source / "out"
    masks.mkdir()
    for name in ("00.png", "01.png"):
        Image.open(source / "left.png").save(masks / name)
    given = [source / "AtoB.safetensors", source / "content", "-o", out, "--device", "cpu"]
    given = [str(value) for value in [*given, "--style", styles(source)[0], "--region"]]

    def painted(region: Path, *more: str) -> int:
        return run("cyclegan translate", command.main, [*given, str(region), *more])

    assert painted(masks) == 0
    before = (out / "00.png").read_bytes()
    Image.open(source / "right.png").save(masks / "00.png")
    later = (out / "00.png").stat().st_mtime + 5
    os.utime(masks / "00.png", (later, later))
    assert painted(masks) == 0
    assert "1 translated" in capsys.readouterr().err and (out / "00.png").read_bytes() != before
    assert painted(source / "left.png", "--overwrite") == 0
    Image.open(source / "right.png").save(source / "left.png")
    os.utime(source / "left.png", (0, 0))  # as a copy that keeps its date
    assert painted(source / "left.png") == 1
    assert "or in another style, region, mask or quality" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"regions": ["left.png"], "style": "both"}, GeneratorFileError, "one for each --style expected, 2, found 1"),
        ({"regions": ["gone.png"], "style": "one"}, GeneratorFileError, r"--region: no mask or folder of masks .*gone"),
        ({"keep_colours": "histogram"}, GeneratorFileError, "name it by --style"),
        ({"keep_colours": "sepia"}, GeneratorFileError, "expected histogram or luminance, found 'sepia'"),
        ({"regions": ["style/00.png", "right.png"], "style": "both"}, ImageError, "40x40, its picture 64x64"),
        ({"keep_colours": "luminance", "tiling": Tiling(above=1)}, TilingError, "--tiles never"),
        ({"style": "both", "style_weights": [1.0]}, GeneratorFileError, "one, at least 0 and finite, for each of 2"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    source: Path, paint: Callable, options: dict, error: type[Exception], words: str
):
    if "style" in options:
        options = {**options, "style": styles(source)[: 1 if options["style"] == "one" else 2]}
    if "regions" in options:
        options = {**options, "regions": [source / name for name in options["regions"]]}
    with pytest.raises(error, match=words) as caught:
        paint(**options)
    assert "\n" not in str(caught.value)


def test_other_generators_have_neither(tmp_path: Path):
    save_generator(tmp_path / "r.safetensors", build_generator({"name": "resnet", "width": 4, "blocks": 1}), ABOUT)
    with pytest.raises(GeneratorFileError, match="generators of content and style"):
        translate(tmp_path / "r.safetensors", Image.new("RGB", (8, 8)), keep_colours="luminance")
