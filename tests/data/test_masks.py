from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.config import ConfigError, Data
from cyclegan.data.bundles import unbundled
from cyclegan.data.dataset import Draw, UnpairedDataset, collate
from cyclegan.data.folders import find_split
from cyclegan.data.images import ImageError, find_images
from cyclegan.data.paired import PairedDataset
from cyclegan.data.transforms import Transform


@pytest.fixture
def masked(pictures: Path, tmp_path: Path) -> Data:
    """Domain A with masks that are white on one side of a slanted line, and red just there in the picture."""
    for path in find_images(pictures / "trainA"):
        rows, columns = np.mgrid[:40, :40]
        mask = (columns > rows * 0.5 + 5).astype(np.uint8) * 255
        pixels = np.array(Image.open(path))
        pixels[..., 0] = mask
        Image.fromarray(pixels).save(path)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{path.stem}.bmp")  # another suffix
    return Data(root=pictures, load_size=40, crop_size=32, A={"mask": tmp_path / "masks"})


def dataset(data: Data) -> UnpairedDataset:
    return UnpairedDataset(find_split(data, "train"), data, seed=0)


def test_a_mask_is_cropped_and_flipped_with_its_picture(masked: Data):
    items = [dataset(masked)[Draw(0, place)] for place in range(12)]
    (batch,) = unbundled([collate(items, 12)])
    assert batch["A_mask"].shape == (12, 1, 32, 32) and "B_mask" not in batch
    assert torch.equal(batch["A_mask"], batch["A"][:, :1] / 255)
    assert len({mask.numpy().tobytes() for mask in batch["A_mask"]}) > 6


def test_a_resized_mask_stays_in_place(masked: Data):
    data = masked.model_copy(update={"load_size": 80, "crop_size": 64})
    item = dataset(data)[Draw(0, 0)]
    red = item["A"][0] / 255
    assert ((red > 0.5) == (item["A_mask"][0] > 0.5)).float().mean() > 0.98


def test_a_mask_changes_nothing_about_its_picture(masked: Data):
    data = masked.model_copy(deep=True)
    data.A.augment = [{"name": "ColorJitter", "p": 0.5}, {"name": "GaussNoise", "p": 0.5}]
    transform, path = Transform(data, "A"), find_split(data, "train")["A"][0]
    for seed in range(8):
        picture, mask = transform.with_mask(path, data.A.mask / f"{path.stem}.bmp", seed)
        assert torch.equal(picture, transform(path, seed))
        assert set(mask.unique().tolist()) == {0, 1}


def test_a_missing_mask_is_named_before_the_run_begins(masked: Data):
    (masked.A.mask / "03.bmp").unlink()
    with pytest.raises(
        ConfigError, match=r"data\.A\.mask: .* has no mask for 1 of 5 pictures; .*03\.png needs 03\.png"
    ):
        dataset(masked)


def test_two_masks_of_one_name_are_named(masked: Data):
    Image.new("L", (40, 40)).save(masked.A.mask / "03.png")
    with pytest.raises(ConfigError, match=r"data\.A\.mask: .*03\.bmp and .*03\.png are masks of one name"):
        dataset(masked)


def test_masks_of_test_pictures_that_are_not_there_are_no_use(masked: Data, tmp_path: Path):
    (masked.root / "testA").rename(tmp_path / "away")
    masked.A.test_mask = masked.A.mask
    with pytest.raises(ConfigError, match=r"data\.A\.test_mask: A has no test pictures; .* data\.A\.test"):
        find_split(masked, "test")
    masked.A.test = tmp_path / "away"
    assert len(find_split(masked, "test")["A"]) == 3


def test_a_folder_that_is_not_there_is_named(masked: Data):
    masked.A.mask = Path("nowhere")
    with pytest.raises(ConfigError, match=r"data\.A\.mask: no folder nowhere"):
        dataset(masked)


def test_a_mask_of_another_size_is_named(masked: Data):
    Image.new("L", (20, 40)).save(masked.A.mask / "00.bmp")
    with pytest.raises(ImageError, match=r"mask .*00\.bmp is 20x40, its picture 40x40"):
        Transform(masked, "A").with_mask(masked.root / "trainA" / "00.png", masked.A.mask / "00.bmp", 0)
    messages = [item["skipped"] for item in (dataset(masked)[Draw(0, place)] for place in range(5))]
    assert any("00.bmp is 20x40" in message for skipped in messages for message in skipped)


def test_masks_do_not_go_with_paired_pictures_nor_with_zoomed_crops(masked: Data):
    (masked.root / "trainA" / "04.png").unlink()
    paired = masked.model_copy(update={"pairing": "paired"})
    with pytest.raises(ConfigError, match=r"data\.A\.mask: not with data\.pairing=paired"):
        PairedDataset(find_split(paired, "train"), paired, seed=0)
    with pytest.raises(ConfigError, match=r"data\.A\.mask: not with data\.resize=zoom_and_crop"):
        dataset(masked.model_copy(update={"resize": "zoom_and_crop"}))
