from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.config import ConfigError, load_config
from cyclegan.data.images import ImageError, find_images
from cyclegan.data.transforms import to_picture
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from cyclegan.training.samples import sample_images, sample_sheet, translate_samples
from tests.conftest import merged


@pytest.fixture
def masked(options: dict, tmp_path: Path) -> dict:
    """Test pictures of A with masks that are white above and black below."""
    (tmp_path / "masks").mkdir()
    for path in find_images(Path(options["data"]["root"]) / "testA"):
        size = Image.open(path).size
        mask = np.zeros(size[::-1], np.uint8)
        mask[: size[1] // 2] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{path.stem}.png")
    return merged(options, data={"A": {"test_mask": str(tmp_path / "masks")}})


def test_a_sheet_shows_pictures_as_they_were_outside_their_masks(masked: dict):
    images = sample_images(load_config(masked))
    generators = {"AtoB": lambda x: -torch.ones_like(x), "BtoA": torch.ones_like}
    pictures = translate_samples(generators, images)
    real, fake = pictures["AtoB"]
    half = real.shape[2] // 2
    # two rows of soft edge aside
    assert torch.equal(fake[:, :, half + 2 :], real[:, :, half + 2 :]) and (fake[:, :, : half - 2] == -1).all()
    assert (pictures["BtoA"][1] == 1).all()
    sheet = np.asarray(sample_sheet(generators, pictures, images))
    zoom = 128 // real.shape[2]
    width, lower = real.shape[3] * zoom, slice(20 + (half + 2) * zoom, 20 + real.shape[2] * zoom)
    for left in (4 + column * (width + 4) for column in (1, 2, 3)):  # the first picture's fake, back and identity
        assert np.array_equal(sheet[lower, left : left + width], sheet[lower, 4 : 4 + width])


def test_a_sheet_shows_the_style_that_each_content_is_painted_in(options: dict):
    images = sample_images(load_config(options))
    images = {"A": images["A"], "B": images["B"][:1]}
    torch.manual_seed(0)
    generator = initialize(build_generator({"name": "adain", "layer": "relu2_1"}), "kaiming", gain=0.7)
    pictures = translate_samples({"AtoB": generator}, images)
    for i in range(2):
        assert torch.equal(pictures["AtoB"][1][i : i + 1], generator(images["A"][i : i + 1], images["B"]))
    sheet, width = np.asarray(sample_sheet({"AtoB": generator}, pictures, images)), 132
    assert sheet.shape[1] == 3 * width + 4
    style = np.asarray(to_picture(images["B"][0]).resize((128, 128), Image.Resampling.NEAREST))
    for top in (20, 20 + width):
        assert np.array_equal(sheet[top : top + 128, 4 + width : 4 + width + 128], style)


def test_a_test_picture_without_a_mask_is_named_with_its_option(masked: dict, tmp_path: Path):
    next((tmp_path / "masks").iterdir()).unlink()
    with pytest.raises(ConfigError, match=r"data\.A\.test_mask: .*needs"):
        sample_images(load_config(masked))


def test_a_damaged_test_picture_is_named_or_another_shown_as_configured(options: dict, capsys):
    (Path(options["data"]["root"]) / "testA" / "00.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"00\.png.*data\.corrupt=skip"):
        sample_images(load_config(options))
    images = sample_images(load_config(merged(options, data={"corrupt": "skip"})))
    assert len(images["A"]) == 2 and capsys.readouterr().out.count("00.png") == 1
