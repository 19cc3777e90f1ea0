from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan.inference.files import _pasted
from cyclegan.inference.picture_files import Picture
from cyclegan.inference.work_list import Job
from tests.inference.test_translate_files import generator, main, noise, plainly, same, save, source  # noqa: F401


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "inner/b.png"):
        save(tmp_path / "in" / name, 24, 32)
        mask = np.zeros((24, 32), np.uint8)
        mask[6:18, 8:20] = 255
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save((tmp_path / "masks" / name).with_suffix(".bmp"))
    return tmp_path


def test_translations_are_pasted_where_the_mask_is_white(generator, source, folder):  # noqa: F811
    arguments = [source, str(folder / "in"), "-o", str(folder / "out"), "--mask", str(folder / "masks")]
    assert main([*arguments, "--precision", "fp32"]) == 0
    expected = noise(24, 32)
    expected[6:18, 8:20] = plainly(generator, expected)[6:18, 8:20]
    for name in ("a.png", "inner/b.png"):
        result = np.array(Image.open(folder / "out" / name))
        assert same(result, expected)
        result[6:18, 8:20] = noise(24, 32)[6:18, 8:20]
        assert np.array_equal(result, noise(24, 32))  # outside, nothing has changed


def test_a_result_older_than_its_mask_is_made_again(generator, source, folder, capsys):  # noqa: F811
    arguments = [source, str(folder / "in"), "-o", str(folder / "out"), "--mask", str(folder / "masks")]
    assert main(arguments) == 0
    Image.new("L", (32, 24)).save(folder / "masks" / "a.bmp")
    later = (folder / "out" / "a.png").stat().st_mtime + 5
    os.utime(folder / "masks" / "a.bmp", (later, later))
    assert main(arguments) == 0
    assert "1 translated" in capsys.readouterr().err.splitlines()[-1]
    assert np.array_equal(np.asarray(Image.open(folder / "out" / "a.png")), noise(24, 32))  # all black: as it was


def test_missing_and_missized_masks_are_named(source, folder, capsys):  # noqa: F811
    arguments = [source, str(folder / "in"), "-o", str(folder / "out"), "--mask", str(folder / "masks")]
    Image.new("L", (5, 5)).save(folder / "masks" / "a.bmp")
    assert main(arguments) == 1
    assert "a.bmp is 5x5, its picture 32x24" in capsys.readouterr().err
    Image.new("L", (32, 24)).save(folder / "masks" / "a.png")
    assert main(arguments) == 1
    assert "a.bmp and" in (said := capsys.readouterr().err) and "a.png are masks of one name" in said
    (folder / "masks" / "a.png").unlink()
    (folder / "masks" / "a.bmp").unlink()
    assert main(arguments) == 1
    assert "has none for 1 of 2 pictures, such as" in capsys.readouterr().err


def test_deep_tiles_are_pasted_on_the_scale_of_their_picture():
    """Tiles come as uint16, the picture itself as floats in [0, 1]."""
    picture = Picture(np.full((2, 2, 3), 0.25, np.float32))
    tiles = Picture(np.full((2, 2, 3), 32768, np.uint16))
    with tempfile.TemporaryDirectory() as folder:
        mask = Path(folder) / "mask.png"
        Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8)).save(mask)
        pasted = _pasted(Job(Path("a.png"), Path("b.png"), mask=mask), picture, tiles).pixels
    assert pasted[..., 0] == pytest.approx(np.array([[32768 / 65535, 0.25], [0.25, 32768 / 65535]]), abs=1e-6)


def test_no_mask_of_a_folder_is_overwritten(source, folder, capsys):  # noqa: F811
    (folder / "masks" / "a.bmp").rename(folder / "masks" / "a.png")
    given = [source, str(folder / "in"), "--mask", str(folder / "masks"), "-o", str(folder / "masks"), "--overwrite"]
    assert main(given) == 1
    assert "a.png, which it is made from; choose another output" in capsys.readouterr().err
