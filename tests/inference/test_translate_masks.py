from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.test_translate_files import generator, main, noise, plainly, save, source  # noqa: F401


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
        assert np.array_equal(np.asarray(Image.open(folder / "out" / name)), expected)


def test_missing_and_missized_masks_are_named(source, folder, capsys):  # noqa: F811
    arguments = [source, str(folder / "in"), "-o", str(folder / "out"), "--mask", str(folder / "masks")]
    Image.new("L", (5, 5)).save(folder / "masks" / "a.bmp")
    assert main(arguments) == 1
    assert "a.bmp is 5x5, its picture 32x24" in capsys.readouterr().err
    (folder / "masks" / "a.bmp").unlink()
    assert main(arguments) == 1
    assert "has none for 1 of 2 pictures, such as" in capsys.readouterr().err
