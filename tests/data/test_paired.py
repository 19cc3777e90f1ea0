from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.config import ConfigError, Data
from cyclegan.data.dataset import Draw
from cyclegan.data.folders import find_split
from cyclegan.data.images import ImageError, scaled
from cyclegan.data.paired import PairedDataset
from cyclegan.data.transforms import PlainTransform
from tests.conftest import write_pictures

COLOUR = {"name": "ColorJitter", "brightness": 0.5, "hue": 0.3, "p": 1.0}
TURN = {"name": "Rotate", "limit": 90, "p": 1.0}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pairs that are copies of each other: whatever is done to one side only shows."""
    write_pictures(tmp_path / "trainA", 5, seed=1)
    shutil.copytree(tmp_path / "trainA", tmp_path / "trainB")
    return tmp_path


def pairs(data: Data, count: int = 12) -> list[dict]:
    dataset = PairedDataset(find_split(data, "train"), data, seed=0)
    return [dataset[Draw(0, place)] for place in range(count)]


def options(root: Path, **more) -> dict:
    return {"root": root, "load_size": 48, "crop_size": 32, "pairing": "paired", **more}


@pytest.mark.parametrize("augment", [[], [COLOUR], [TURN], [COLOUR, TURN]])
def test_both_sides_are_cropped_flipped_and_augmented_alike(augment: list, root: Path):
    items = pairs(Data(**options(root, A={"augment": augment}, B={"augment": augment})))
    assert all(item["problem"] is None and torch.equal(item["A"], item["B"]) for item in items)
    assert len({item["A"].sum().item() for item in items}) == 12  # every draw another


def test_colours_of_one_side_alone_leave_the_geometry_of_both(root: Path):
    plain = pairs(Data(**options(root)))
    jittered = pairs(Data(**options(root, A={"augment": [COLOUR]})))
    for one, two in zip(plain, jittered, strict=True):
        assert torch.equal(one["B"], two["B"]) and not torch.equal(one["A"], two["A"])


def test_a_grey_side_has_the_geometry_of_the_coloured_one(root: Path):
    for item in pairs(Data(**options(root, A={"channels": 1}))):
        grey = (scaled(item["B"]) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
        assert (scaled(item["A"][0]) - grey).abs().max() < 0.03  # rounded to 8 bits before and after


def test_moving_the_pixels_of_one_side_alone_is_refused(root: Path):
    with pytest.raises(ConfigError, match=r"data\.A\.augment\[1\]: Rotate moves pixels"):
        pairs(Data(**options(root, A={"augment": [COLOUR, TURN]}, B={"augment": [COLOUR]})))


def test_names_pair_whatever_their_order_and_kind(root: Path):
    shutil.rmtree(root / "trainB")
    (root / "trainB").mkdir()
    for i, path in enumerate(sorted((root / "trainA").iterdir())):
        Image.new("RGB", (40, 40), (i * 10, 0, 0)).save(root / "trainB" / f"{path.stem}_B.bmp")
        path.rename(path.with_name(f"{path.stem}_A.png"))
    files = find_split(Data(**options(root, limit=3)), "train")
    assert [path.stem for path in files["A"]] == ["00_A", "01_A", "02_A"]
    assert [path.name for path in files["B"]] == ["00_B.bmp", "01_B.bmp", "02_B.bmp"]


def test_pictures_without_a_counterpart_are_named(root: Path):
    (root / "trainB" / "03.png").rename(root / "trainB" / "33.png")
    with pytest.raises(ConfigError, match=r"1 of 5 pictures in .*trainA have none of the same name in .*trainB: 03$"):
        find_split(Data(**options(root)), "train")
    Image.new("RGB", (9, 9)).save(root / "trainA" / "01.jpg")
    with pytest.raises(ConfigError, match=r"second picture in .*trainA has the name of .*01\.jpg"):
        find_split(Data(**options(root)), "train")


def test_a_damaged_side_takes_its_other_side_with_it(root: Path):
    (root / "trainB" / "02.png").write_bytes(b"no picture")
    items = pairs(Data(**options(root)), 5)
    assert all(torch.equal(item["A"], item["B"]) for item in items)
    (message,) = [message for item in items for message in item["skipped"]]
    assert "trainB/02.png" in message


def test_sides_that_differ_in_size_need_a_resize(root: Path):
    write_pictures(root / "trainB", 5, side=50)
    assert all("resize_and_crop" in item["problem"] for item in pairs(Data(**options(root, resize="crop")), 3))
    assert all(item["problem"] is None for item in pairs(Data(**options(root)), 3))


# ---- side by side


@pytest.fixture
def both_in_one(tmp_path: Path) -> Path:
    """Left halves are dark, right halves are 100 lighter."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        (tmp_path / split).mkdir()
        for i in range(count):
            left = draw.integers(0, 150, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(np.concatenate([left, left + 100], 1)).save(tmp_path / split / f"{i}.png")
    return tmp_path


def test_left_is_a_and_right_is_b(both_in_one: Path):
    data = Data(**options(both_in_one, side_by_side=True, load_size=40))
    items = pairs(data)
    assert all(torch.equal(item["A"] + 100, item["B"]) for item in items)
    (file, _) = find_split(data, "test")["B"]  # val stands in where there is no test
    assert PlainTransform(data, "A")(file).max() < PlainTransform(data, "B")(file).max() - 0.5


def test_halves_can_be_drawn_unpaired_too(both_in_one: Path):
    data = Data(root=both_in_one, side_by_side=True)
    files = find_split(data, "train")
    assert files["A"] == files["B"] and len(files["A"]) == 4


def test_a_picture_that_cannot_be_halved_is_named_and_halves_need_not_be_squares(both_in_one: Path):
    data = Data(**options(both_in_one, side_by_side=True))
    Image.new("RGB", (91, 40)).save(both_in_one / "train" / "0.png")
    with pytest.raises(ImageError, match=r"0\.png: 91x40 pixels.*equally wide"):
        PlainTransform(data, "A")(both_in_one / "train" / "0.png")
    Image.new("RGB", (96, 40)).save(both_in_one / "train" / "0.png")
    assert PlainTransform(data, "B")(both_in_one / "train" / "0.png").shape[1:] == (40, 48)


def test_a_missing_folder_of_pairs_is_named(tmp_path: Path):
    (tmp_path / "trainA").mkdir()
    with pytest.raises(FileNotFoundError, match=r"looked for train; found trainA.*side_by_side=false for .*trainA$"):
        find_split(Data(root=tmp_path, side_by_side=True), "train")


def test_a_folder_of_pairs_is_offered_where_two_are_looked_for(both_in_one: Path):
    with pytest.raises(FileNotFoundError, match=r"found train, val.*, or data.side_by_side=true for .*train$"):
        find_split(Data(root=both_in_one), "train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_of_b_is_refused_where_the_pictures_of_a_hold_both(split: str, both_in_one: Path):
    data = Data(A={"train": both_in_one / "train"}, B={split: both_in_one / "val"}, side_by_side=True)
    with pytest.raises(ConfigError, match=rf"data\.B\.{split}: not with data\.side_by_side"):
        find_split(data, "train")
