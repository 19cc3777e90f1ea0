from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan.commands import run
from cyclegan.commands.stylize import main
from tests.conftest import write_pictures

TINY = ["--backbone", "squeezenet", "--weights", "random", "--content-layers", "relu1", "--style-layers", "relu1"]
TINY += ["fire2=0.5", "--steps", "4", "--size", "40", "--device", "cpu"]
pytestmark = pytest.mark.filterwarnings("ignore:squeezenet has random weights")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "content", 2, side=48)
    write_pictures(tmp_path / "style", 2, side=40, seed=7)
    return tmp_path


def stylize(*arguments: str | Path) -> int:
    return run("cyclegan stylize", main, [str(argument) for argument in (*arguments, *TINY)])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=float)


def test_a_folder_is_painted_with_curve_and_steps_and_not_twice(folders: Path, capsys):
    out, style = folders / "out", folders / "style" / "00.png"
    given = (folders / "content", style, "-o", out, "--every", "2", "--log", folders / "curve.jsonl", "--levels", "1")
    assert stylize(*given) == 0
    assert sorted(path.name for path in out.iterdir()) == ["00.png", "00.steps", "01.png", "01.steps"]
    assert [path.name for path in sorted((out / "00.steps").iterdir())] == ["0-00002.png", "0-00004.png"]
    assert pixels(out / "00.png").shape == (40, 40, 3)
    assert np.array_equal(pixels(out / "00.png"), pixels(out / "00.steps" / "0-00004.png"))
    lines = [json.loads(line) for line in (folders / "curve.jsonl").read_text().splitlines()]
    assert len(lines) == 8 and {"picture", "level", "step", "lr", "content", "style", "loss"} <= set(lines[0])
    assert lines[3]["loss"] < lines[0]["loss"]
    assert stylize(*given) == 0
    assert "0 painted" in capsys.readouterr().err


def test_several_styles_masks_and_one_file(folders: Path):
    Image.fromarray(np.repeat(np.array([[255, 0]], np.uint8), 20, 1).repeat(40, 0)).save(folders / "left.png")
    Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 20, 1).repeat(40, 0)).save(folders / "right.png")
    target = folders / "made" / "one.jpg"
    styles = sorted((folders / "style").iterdir())
    masks = ("--mask", folders / "left.png", folders / "right.png", "--style-weights", "0.7", "0.3")
    assert stylize(folders / "content" / "00.png", *styles, "-o", target, *masks, "--start", "0.5") == 0
    assert pixels(target).shape == (40, 40, 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--mask", "a.png", "b.png"], "--mask: one for each of 1 styles expected, found 2"),
        (["--content-layers", "relu9"], "squeezenet has no layer 'relu9'; choices: relu1"),
        (["--style-layers", "relu1", "relu1=3"], "style_layers: each layer once expected, found relu1 relu1"),
        (["--style-weights", "nan"], "style weights: expected at least 0 and finite, found nan"),
        (["--style-layers", "relu1=-1"], "style_layers: expected a layer or more, with weights that are at least 0"),
        (["--style-scale", "0"], "style_scale: expected above 0"),
        (["--device", "nowhere"], "device nowhere"),
    ],
)
def test_a_mistake_is_one_line(folders: Path, more: list[str], words: str, capsys):
    given = [folders / "content", folders / "style" / "00.png", "-o", folders / "out", *TINY, *more]
    assert run("cyclegan stylize", main, [str(argument) for argument in given]) == 1
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "given", [("--every", "-1"), ("--quality", "0"), ("--quality", "101"), ("--size", "-3"), ("--seed", "9" * 23)]
)
def test_numbers_out_of_range_are_wrong_usage(given: tuple[str, str], capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["a.png", "b.png", "-o", "out", *given])
    assert f"{given[0]}: expected a whole number from" in capsys.readouterr().err


def test_random_weights_are_told_in_one_line(folders: Path, capsys):
    with warnings.catch_warnings():
        warnings.filterwarnings("always", "squeezenet has random")
        assert stylize(folders / "content" / "00.png", folders / "style" / "00.png", "-o", folders / "out") == 0
    first, last = capsys.readouterr().err.splitlines()
    assert first == "cyclegan stylize: squeezenet has random weights, as asked for: its features mean nothing"
    assert last.startswith("1 painted")


@pytest.mark.parametrize("given", ["2", "-0.1", "nan", "middle"])
def test_a_start_that_is_no_share_is_named_as_it_was_given(given: str, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["a.png", "b.png", "-o", "out", f"--start={given}"])
    assert f"--start: '{given}' is not content, noise or a number from 0 to 1" in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(folders: Path, capsys):
    (folders / "content" / "00.png").write_bytes(b"no picture")
    assert stylize(folders / "content", folders / "style" / "00.png", "-o", folders / "out") == 1
    assert (folders / "out" / "01.png").is_file() and "00.png" in capsys.readouterr().err


def test_a_picture_that_cannot_be_painted_does_not_stop_the_others(folders: Path, capsys):
    Image.new("RGB", (20, 200)).save(folders / "content" / "00.png")  # 4 pixels wide at 40
    assert stylize(folders / "content", folders / "style" / "00.png", "-o", folders / "out") == 1
    assert [path.name for path in (folders / "out").iterdir()] == ["01.png"]
    told = capsys.readouterr().err.splitlines()[-3:]
    assert told[0].startswith("1 painted") and "1 failed" in told[1]
    assert "00.png: content: sides of at least 32 pixels expected, found 4" in told[2]


def test_a_picture_whose_place_cannot_be_written_does_not_stop_the_others(folders: Path, capsys):
    (folders / "content" / "a").mkdir()
    (folders / "content" / "00.png").rename(folders / "content" / "a" / "02.png")
    (folders / "out").mkdir()
    (folders / "out" / "a").symlink_to(folders / "style")
    assert stylize(folders / "content", folders / "style" / "00.png", "-o", folders / "out") == 1
    assert "1 failed" in capsys.readouterr().err and (folders / "out" / "01.png").exists()
    assert len(list((folders / "style").iterdir())) == 2


def test_pictures_up_to_max_pixels_are_taken(folders: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    given = (folders / "content" / "00.png", folders / "style" / "00.png", "-o", folders / "made.png", "--max-pixels")
    assert (
        stylize(*given, "500") == 1
        and "style/00.png: 1,600 pixels, more than the limit of 500" in capsys.readouterr().err
    )
    assert stylize(*given, "2000") == 1 and "more than the limit of 2,000 (--max-pixels)" in capsys.readouterr().err
    assert stylize(*given, "2500") == 0


def test_a_style_is_not_painted_over(folders: Path, capsys):
    style = folders / "style" / "00.png"
    before = style.read_bytes()
    assert stylize(folders / "content", style, "-o", folders / "style", "--overwrite") == 1
    assert "which it is made from; choose another output" in capsys.readouterr().err and style.read_bytes() == before


def test_a_folder_is_no_style(folders: Path, capsys):
    assert stylize(folders / "content", folders / "style", "-o", folders / "out") == 1
    assert "style is a folder: name the pictures" in capsys.readouterr().err
