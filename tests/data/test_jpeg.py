"""JPEGs read the fast way are what Pillow makes of them, and what is not plain is left to Pillow."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan.config import Data
from cyclegan.data.images import ImageError, read_image
from cyclegan.data.jpeg import read_jpeg, upright_colour
from cyclegan.data.transforms import Reader, Transform


def photograph(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    return exif


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"subsampling": 0},
        {"subsampling": 1, "quality": 30},
        {"progressive": True},
        {"exif": turned(1)},
        {"dpi": (72, 72), "comment": b"x" * 300},
        {"keep_rgb": True},
        {"restart_marker_blocks": 2},
    ],
    ids=lambda how: " ".join(how) or "plain",
)
def test_pixels_are_pillows(how: dict, tmp_path: Path):
    photograph(53, 37).save(tmp_path / "x.jpg", **how)
    assert np.array_equal(read_jpeg(tmp_path / "x.jpg"), read_image(tmp_path / "x.jpg"))


@pytest.mark.parametrize(("most", "fast"), [(53 * 37, True), (53 * 37 - 1, False), (None, True)])
def test_pillows_limit_of_pixels_holds(most: int | None, fast: bool, tmp_path: Path, monkeypatch):
    photograph(53, 37).save(tmp_path / "x.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    assert (read_jpeg(tmp_path / "x.jpg") is not None) == fast


def test_the_extended_process_is_read_as_the_baseline_is(tmp_path: Path):
    photograph(53, 37).save(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes().replace(b"\xff\xc0", b"\xff\xc1"))
    assert np.array_equal(read_jpeg(tmp_path / "x.jpg"), read_image(tmp_path / "x.jpg"))


def test_what_is_too_large_for_opencv_is_left_to_pillow(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    photograph(53, 37).save(tmp_path / "x.jpg")
    sides = struct.pack(">HH", 37, 53), struct.pack(">HH", 65000, 65000)
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes().replace(*sides))
    assert upright_colour((tmp_path / "x.jpg").read_bytes()) == (65000, 65000)
    assert read_jpeg(tmp_path / "x.jpg") is None


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_picture_is_left_to_pillow(orientation: int, order: str, tmp_path: Path):
    exif = turned(orientation)
    exif.endian = "<" if order == "little" else ">"
    photograph(53, 37).save(tmp_path / "x.jpg", exif=exif.tobytes())
    assert read_jpeg(tmp_path / "x.jpg") is None
    assert Reader(Data(), "A")(tmp_path / "x.jpg").shape[:2] == ((37, 53) if orientation == 3 else (53, 37))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["B", "H", "I"])
def test_an_orientation_of_any_kind_of_number_counts_as_pillow_has_it(kind: str, order: str, tmp_path: Path):
    """Bytes not at all; whether decoded whole or at a part of the size."""
    number = {"B": 1, "H": 3, "I": 4}[kind]
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, 1)
    entry = struct.pack(f"{order}HHI", 0x0112, number, 1) + struct.pack(f"{order}{kind}", 6).ljust(4, b"\0")
    photograph(530, 370).save(tmp_path / "x.jpg", exif=b"Exif\0\0" + head + entry + bytes(4))
    expected = (370, 530) if kind == "B" else (530, 370)
    for size_for in (None, lambda *_: (10, 10)):
        assert Reader(Data(), "A")(tmp_path / "x.jpg", size_for).shape[:2] == expected


@pytest.mark.parametrize("form", ['<x tiff:Orientation="6"/>', "<tiff:Orientation>6</tiff:Orientation>"])
def test_a_picture_turned_by_xmp_is_left_to_pillow(form: str, tmp_path: Path):
    photograph(53, 37).save(tmp_path / "x.jpg", xmp=form.encode())
    assert read_jpeg(tmp_path / "x.jpg") is None
    assert Reader(Data(), "A")(tmp_path / "x.jpg").shape == read_image(tmp_path / "x.jpg").shape == (53, 37, 3)


def test_xmp_that_says_upright_turns_nothing(tmp_path: Path):
    photograph(53, 37).save(tmp_path / "x.jpg", xmp=b'<x tiff:Orientation="1"/>')
    assert np.array_equal(read_jpeg(tmp_path / "x.jpg"), read_image(tmp_path / "x.jpg"))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_are_left_to_pillow(mode: str, tmp_path: Path):
    photograph(20, 20).convert(mode).save(tmp_path / "x.jpg")
    assert read_jpeg(tmp_path / "x.jpg") is None and Reader(Data(), "A")(tmp_path / "x.jpg").shape == (20, 20, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_of_files_with_changed_bytes_those_are_refused_that_pillow_refuses(progressive: bool, tmp_path: Path):
    photograph(128, 128).save(tmp_path / "x.jpg", quality=98, progressive=progressive)
    whole, random, refused = (tmp_path / "x.jpg").read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(2, len(whole), 5):
            damaged[place] = random.choice([0xFF, random.integers(256)])
        (tmp_path / "x.jpg").write_bytes(damaged)
        try:
            read_image(tmp_path / "x.jpg")
        except ImageError:
            refused += 1
            assert read_jpeg(tmp_path / "x.jpg") is None
    assert refused > 10


@pytest.mark.parametrize("length", [0, 2, 30, 400, 900])
def test_a_cut_file_is_refused_with_its_name(length: int, tmp_path: Path):
    photograph(64, 64).save(tmp_path / "x.jpg")
    whole = (tmp_path / "x.jpg").read_bytes()
    assert len(whole) > 1000
    (tmp_path / "x.jpg").write_bytes(whole[:length])
    with pytest.raises(ImageError, match=r"x\.jpg"):
        Reader(Data(), "A")(tmp_path / "x.jpg")


def test_a_file_that_is_gone_is_refused_with_its_name(tmp_path: Path):
    with pytest.raises(ImageError, match=r"x\.jpg"):
        Reader(Data(), "A")(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    ("width", "height", "decoded"),
    [
        (383, 400, (400, 383)),
        (384, 400, (200, 192)),
        (767, 800, (400, 384)),
        (801, 768, (192, 201)),
        (1600, 1535, (384, 400)),
        (1600, 1536, (192, 200)),
    ],
)
def test_a_far_larger_picture_is_decoded_smaller_yet_thrice_as_large_as_wanted(
    width: int, height: int, decoded: tuple, tmp_path: Path
):
    photograph(width, height).save(tmp_path / "x.jpg", quality=95)
    assert read_jpeg(tmp_path / "x.jpg", lambda *_: (64, 64)).shape[:2] == decoded


def test_the_whole_way_stays_close_to_the_plain_one(tmp_path: Path):
    """Large and small pictures, against Pillow alone: whole, shrunk with antialiasing, cropped."""
    for width, height, most in ((60, 70, 0.2), (200, 250, 0.2), (400, 500, 0.6), (1600, 1700, 0.6)):
        photograph(width, height).save(tmp_path / "x.jpg", quality=95)
        plain = Image.open(tmp_path / "x.jpg").resize((64, 64), Image.Resampling.BICUBIC)
        ours = Transform(Data(load_size=64, crop_size=64, flip=0), "A")(tmp_path / "x.jpg", 0)
        apart = np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(plain, dtype=int))
        assert apart.mean() < most and apart.max() <= 4
