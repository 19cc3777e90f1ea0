from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.config import ConfigError, Data
from cyclegan.data.images import ImageError, scaled, to_tensor
from cyclegan.data.transforms import PlainTransform, Transform, resized, to_picture


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


@pytest.mark.parametrize(
    ("resize", "sides"),
    [
        ("resize_and_crop", (32, 32)),
        ("crop", (32, 32)),
        ("scale_width", (32, 48)),  # 50 * 48 / 90 = 27 would be below the crop's side
        ("scale_width_and_crop", (32, 32)),
        ("none", (48, 88)),  # 50 and 90, rounded to multiples of four
    ],
)
def test_sides_after_each_resize_are_the_references(resize: str, sides: tuple, wide: Path):
    transform = Transform(Data(resize=resize, load_size=48, crop_size=32), "A")
    assert transform(wide, 0).shape == (3, *sides)


@pytest.mark.parametrize("sides", [(24, 36), (56, 103), (50, 45), (60, 200)])
def test_resizing_is_pillows_antialiased_bicubic(sides: tuple[int, int], wide: Path):
    """But for the rounding of the weights, on pixels of noise, where it shows most."""
    image = Image.open(wide)
    expected = np.asarray(image.resize(sides[::-1], Image.Resampling.BICUBIC), dtype=int)
    apart = np.abs(resized(np.asarray(image), lambda *_: sides) - expected)
    assert apart.max() <= 2 and (apart > 0).mean() < 0.05


@pytest.mark.parametrize("sides", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize(("channels", "kind"), [(1, np.uint8), (1, np.float32), (3, np.float32), (3, np.uint8)])
def test_pictures_of_one_row_or_one_column_are_resized_as_others(sides: tuple[int, int], channels: int, kind: type):
    ramp = np.linspace(0, 1, sides[0] * sides[1]).reshape(*sides, 1).repeat(channels, 2)
    larger = resized((ramp * 255).astype(kind) if kind is np.uint8 else ramp.astype(kind), lambda *_: (8, 10))
    assert larger.shape == (8, 10, channels)
    assert [np.ptp(larger, axis).max() > 0.1 for axis in (0, 1)] == [side > 1 for side in sides]


def test_deep_pictures_are_resized_without_rounding(wide: Path):
    pixels = np.asarray(Image.open(wide))
    deep = resized(pixels.astype(np.float32) / 255, lambda *_: (24, 36))
    assert np.abs(deep * 255 - resized(pixels, lambda *_: (24, 36))).max() < 1.5
    assert deep.dtype == np.float32 and len(np.unique(deep)) > 1000


def test_the_whole_pipeline_without_chance_is_resize_and_scale(wide: Path):
    data = Data(load_size=32, crop_size=32, flip=0)
    pixels = np.asarray(Image.open(wide).resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32)
    expected = torch.from_numpy(pixels.transpose(2, 0, 1) / 127.5 - 1)
    assert torch.allclose(scaled(Transform(data, "A")(wide, 0)), expected, atol=2.1 / 127.5)


def test_a_picture_smaller_than_the_crop_grows_to_cover_it(tmp_path: Path):
    Image.new("RGB", (20, 10)).save(tmp_path / "small.png")
    assert Transform(Data(resize="crop", crop_size=32), "A")(tmp_path / "small.png", 0).shape == (3, 32, 32)


def test_the_seed_alone_decides_crop_flip_and_augmentation(wide: Path):
    data = Data(load_size=48, crop_size=32, A={"augment": [{"name": "ColorJitter", "hue": 0.1, "p": 1.0}]})
    one, two = Transform(data, "A"), Transform(data, "A")
    assert torch.equal(one(wide, 7), two(wide, 7))
    assert len({one(wide, seed).sum().item() for seed in range(10)}) == 10


def test_flips_mirror_half_of_the_pictures(wide: Path):
    data = Data(load_size=32, crop_size=32, flip=0.5)
    plain = Transform(Data(load_size=32, crop_size=32, flip=0), "A")(wide, 0)
    transform, flipped = Transform(data, "A"), 0
    for seed in range(200):
        out = transform(wide, seed)
        assert torch.equal(out, plain) or torch.equal(out, plain.flip(2))
        flipped += torch.equal(out, plain.flip(2))
    assert 70 < flipped < 130


def test_crop_and_flip_know_nothing_of_each_other(tmp_path: Path):
    """Every place and both directions, each as often as any: half of the flips at the upper half of the places."""
    rows, columns = np.mgrid[:11, :11].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, rows], axis=2)).save(tmp_path / "x.png")
    transform = Transform(Data(resize="crop", crop_size=8), "A")
    counts = Counter()
    for seed in range(1600):
        crop = transform(tmp_path / "x.png", seed)
        counts[int(crop[0, 0, 0]), int(crop[1].min()), bool(crop[1, 0, 0] > crop[1, 0, 1])] += 1
    assert len(counts) == 4 * 4 * 2 and min(counts.values()) > 25 and max(counts.values()) < 80  # 50 each


def test_augmentations_know_nothing_of_each_other(tmp_path: Path):
    Image.new("RGB", (8, 8), (100, 0, 0)).save(tmp_path / "x.png")
    shifts = [{"name": "RGBShift", f"{c}_shift_limit": [50, 50], **_other(c), "p": 0.5} for c in "gb"]
    transform = Transform(Data(resize="none", flip=0.5, A={"augment": shifts}), "A")
    counts = Counter(tuple(transform(tmp_path / "x.png", seed)[1:, 0, 0].tolist()) for seed in range(400))
    assert set(counts) == {(0, 0), (0, 50), (50, 0), (50, 50)} and min(counts.values()) > 60


def _other(channel: str) -> dict:
    return {f"{c}_shift_limit": [0, 0] for c in "rgb" if c != channel}


def test_sixteen_bit_grey_goes_through_an_augmented_pipeline(tmp_path: Path):
    deep = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    data = Data(load_size=36, crop_size=32, A={"channels": 1, "augment": [{"name": "GaussianBlur", "p": 1.0}]})
    image = Transform(data, "A")(tmp_path / "deep.png", 0)
    assert image.shape == (1, 32, 32) and image.dtype == torch.float32 and len(image.unique()) > 500


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ({"name": "ColorJiter"}, r"data\.A\.augment\[0\].*ColorJiter.*mean ColorJitter"),
        ({"hue": 1}, r"data\.A\.augment\[0\]\.name"),
        ({"name": "ColorJitter", "huge": 1}, "huge.*hue"),
        ({"name": "ColorJitter", "hue": "much"}, "ColorJitter"),
    ],
)
def test_a_wrong_augmentation_is_named(augment: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        Transform(Data(A={"augment": [augment]}), "A")


def test_plain_transform_keeps_the_size_unless_told(wide: Path):
    assert PlainTransform(Data(), "A")(wide).shape == (3, 50, 90)
    assert PlainTransform(Data(), "A", (16, 24))(wide).shape == (3, 16, 24)


def test_pictures_and_tensors_are_inverses():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert np.array_equal(np.asarray(to_picture(to_tensor(pixels))), pixels[..., 0])
    assert to_tensor(pixels).min() == -1 and to_tensor(pixels).max() == 1


def test_zoomed_crops_are_crops_of_the_zoomed_picture(tmp_path: Path):
    """Against the long way round: the whole picture to a scale of 1/2, then every place where the crop may lie."""
    path, coarse = tmp_path / "x.png", np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(path)
    data = Data(root=tmp_path, resize="zoom_and_crop", crop_size=32, zoom=(0.5, 0.5), flip=0)
    transform = Transform(data, "A")
    whole = np.asarray(Image.open(path).resize((48, 48), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1
    places = set()
    for seed in range(8):
        crop = scaled(transform(path, seed)).permute(1, 2, 0).numpy()
        apart = {(y, x): np.abs(whole[y : y + 32, x : x + 32] - crop).mean() for y in range(17) for x in range(17)}
        place = min(apart, key=apart.get)
        assert apart[place] < 0.2 * np.median(list(apart.values()))  # off by half a pixel at most
        places.add(place)
    assert len(places) == 8


def test_a_zoom_never_leaves_less_than_the_crop_and_scales_sides_apart(tmp_path: Path):
    Image.fromarray(np.tile(np.arange(0, 192, dtype=np.uint8)[:, None, None], (1, 192, 3))).save(tmp_path / "y.png")
    data = Data(root=tmp_path, resize="zoom_and_crop", crop_size=32, zoom=(0.01, 1), flip=0)
    transform = Transform(data, "A")
    slopes = [np.diff(transform(tmp_path / "y.png", seed)[0].numpy().astype(float), axis=0) for seed in range(20)]
    slopes = [slope[1:-1].mean() for slope in slopes]  # rows of the picture to a row of the crop
    assert min(slopes) > 0.95 and max(slopes) > 4 and max(slopes) < 6.3  # 192 rows to 32 at the most


def test_scales_come_smallest_first(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"data\.zoom: the smallest"):
        Transform(Data(root=tmp_path, resize="zoom_and_crop", crop_size=32, zoom=(1, 0.5)), "A")


@pytest.mark.parametrize("load_size", [16, (64, 16)])
def test_a_width_below_the_crops_grows_to_it(load_size: int | tuple[int, int], wide: Path):
    transform = Transform(Data(resize="scale_width_and_crop", load_size=load_size, crop_size=32), "A")
    assert transform(wide, 0).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("augmentation", "words"),
    [
        ({"name": "RandomCrop", "height": 300, "width": 300}, "RandomCrop fails on a crop of 64x32"),
        ({"name": "Resize", "height": 30, "width": 30, "p": 0.1}, r"Resize makes uint8 of \(30, 30, 3\)"),
        ({"name": "Normalize"}, "Normalize makes float32"),
        ({"name": "ToGray", "num_output_channels": 1}, "ToGray makes uint8"),
        ({"name": "RandomRotate90"}, "RandomRotate90 makes uint8"),  # by half of its draws
    ],
)
def test_augmentations_that_make_something_else_of_a_crop_are_refused(augmentation: dict, words: str):
    data = Data(crop_size=[32, 64], A={"augment": [{"name": "HorizontalFlip"}, augmentation]})
    with pytest.raises(ConfigError, match=r"data\.A\.augment\[1\]: " + words):
        Transform(data, "A")


def test_an_augmentation_that_fails_on_a_picture_is_named(wide: Path):
    crop = {"name": "RandomCrop", "height": 512, "width": 512}
    transform = Transform(Data(resize="none", A={"augment": [crop]}), "A")
    with pytest.raises(ImageError, match=r"cannot use a picture of \d+x\d+: data\.A\.augment: "):
        transform(wide, seed=0)
