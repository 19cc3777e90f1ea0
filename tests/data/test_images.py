from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from cyclegan.data.images import EXTENSIONS, ImageError, find_images, read_image
from cyclegan.evaluation.features import read_rgb

GRADIENT = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "tiff", "PNG", "TIF"])
def test_lossless_files_come_back_as_they_were(suffix: str, tmp_path: Path):
    Image.fromarray(GRADIENT).save(tmp_path / f"x.{suffix}")
    pixels = read_image(tmp_path / f"x.{suffix}")
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, GRADIENT)


def test_every_kind_that_is_found_is_read(tmp_path: Path):
    """Half dark, half light, so that a kind with one bit, a palette or losses can hold it."""
    halves = np.zeros((16, 16, 3), np.uint8)
    halves[:, 8:] = 255
    assert {".pgm", ".pbm", ".gif", ".jpe", ".tga"} <= EXTENSIONS
    for suffix in EXTENSIONS:
        mode = {".pgm": "L", ".pbm": "1", ".gif": "P"}.get(suffix, "RGB")
        Image.fromarray(halves).convert(mode).save(tmp_path / f"{suffix[1:]}{suffix}")
    assert len(find_images(tmp_path)) == len(EXTENSIONS)
    for path in find_images(tmp_path):
        assert np.abs(read_image(path).astype(int) - halves).max() <= 8, path


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_and_jpeg_2000_are_found(tmp_path: Path):
    assert {".avif", ".jp2"} <= EXTENSIONS


def test_of_a_moving_picture_the_first_frame_is_taken(tmp_path: Path):
    frames = [Image.new("P", (4, 4), colour) for colour in (3, 200)]
    for frame in frames:
        frame.putpalette([value for value in range(256) for _ in range(3)])
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "x.gif") == 3).all()


def test_deep_grey_maps_keep_their_range(tmp_path: Path):
    values = np.array([[0, 1, 65535]], np.uint16)
    (tmp_path / "x.pgm").write_bytes(b"P5 3 1 65535\n" + values.astype(">u2").tobytes())
    assert read_image(tmp_path / "x.pgm", channels=1)[0, :, 0].tolist() == pytest.approx([0, 1 / 65535, 1])


@pytest.mark.parametrize("head", ["P3\n# plain\n2 1\n{}\n", "P3 2 1 {} "])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_pixel_map_of_plain_numbers_is_read_whatever_stands_between_them(head: str, end: str, tmp_path: Path, capfd):
    for white in (255, 1023, 65535):
        (tmp_path / "x.ppm").write_text(head.format(white) + f"0 {white}  3\n 1 2 {white}" + end)
        expected = np.array([[[0, white, 3], [1, 2, white]]]) / (1 if white == 255 else white)
        assert np.allclose(read_image(tmp_path / "x.ppm"), expected, rtol=1e-6)
    assert capfd.readouterr().err == ""


def test_white_is_where_the_head_of_a_pixel_map_says(tmp_path: Path):
    values = np.array([[[0, 1023, 341]]])
    comment = b"# " + b"x" * 600 + b"\n"
    (tmp_path / "x.ppm").write_bytes(b"P6\n" + comment + b"1 1 1023\n" + values.astype(">u2").tobytes())
    assert read_image(tmp_path / "x.ppm")[0, 0].tolist() == pytest.approx([0, 1, 1 / 3])
    (tmp_path / "y.ppm").write_bytes(b"P6\n" + comment + b"1 1 255\n" + bytes([0, 255, 85]))
    assert read_image(tmp_path / "y.ppm")[0, 0].tolist() == [0, 255, 85]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "webp"])
def test_lossy_files_come_back_nearly(suffix: str, tmp_path: Path):
    flat = np.full((16, 16, 3), 77, np.uint8)
    Image.fromarray(flat).save(tmp_path / f"x.{suffix}", quality=95)
    assert np.abs(read_image(tmp_path / f"x.{suffix}").astype(int) - flat).max() <= 3


def test_grey_becomes_three_equal_channels_and_colour_its_luma(tmp_path: Path):
    Image.fromarray(GRADIENT[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(GRADIENT[..., :1], 3, 2))
    assert np.array_equal(read_image(tmp_path / "grey.png", channels=1), GRADIENT[..., :1])
    Image.fromarray(GRADIENT).save(tmp_path / "colour.png")
    luma = GRADIENT @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(tmp_path / "colour.png", channels=1)[..., 0] - luma).max() <= 1


@pytest.mark.parametrize(("background", "colour"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_alpha_is_composited_on_the_background(background: str, colour: int, tmp_path: Path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, [[0, 255], [51, 102]]
    Image.fromarray(rgba).save(tmp_path / "x.png")
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + colour * (1 - alpha)
    assert np.abs(read_image(tmp_path / "x.png", background=background) - expected).max() <= 1


def test_palette_with_a_transparent_entry(tmp_path: Path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png", transparency=0)
    assert read_image(tmp_path / "x.png").tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_grey_with_alpha(tmp_path: Path):
    Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 0)]).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", channels=1).item() == 255


def test_cmyk_becomes_rgb(tmp_path: Path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[0, 0].tolist() == [255, 0, 0]
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "x.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "x.jpg")[0, 0].astype(int) - [0, 255, 255]).max() < 8


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_range(suffix: str, channels: int, tmp_path: Path):
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / f"x.{suffix}"), deep[..., ::-1] if channels == 3 else deep)
    pixels = read_image(tmp_path / f"x.{suffix}", channels)
    assert pixels.dtype == np.float32
    assert np.array_equal(np.round(pixels * 65535).astype(np.uint16), deep)


def write_tiff(path: Path, strips: list[bytes], **tags: int | list[int]) -> None:
    """By hand: what neither Pillow nor OpenCV writes. One row of pixels a strip, shorts for all tags."""
    numbers = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offsets": 273}
    numbers |= {"samples": 277, "rows": 278, "counts": 279, "planar": 284}
    tags |= {"compression": 1, "offsets": [8 + sum(map(len, strips[:i])) for i in range(len(strips))]}
    tags |= {"counts": [len(strip) for strip in strips]}
    start = 8 + sum(map(len, strips))
    entries, more = b"", b""
    for name, value in sorted(tags.items(), key=lambda item: numbers[item[0]]):
        values = value if isinstance(value, list) else [value]
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            place, more = start + 2 + 12 * len(tags) + 4 + len(more), more + packed
            packed = struct.pack("<I", place)
        entries += struct.pack("<HHI", numbers[name], 3, len(values)) + packed.ljust(4, b"\0")
    folder = struct.pack("<H", len(tags)) + entries + bytes(4) + more
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + b"".join(strips) + folder)


def test_sixteen_bits_with_channels_one_after_another_are_refused(tmp_path: Path):
    """OpenCV 5.0 takes them for something else and says nothing."""
    planes = [np.full(4, value, "<u2").tobytes() for value in (65535, 30000, 0)]
    tags = {"width": 4, "height": 1, "bits": [16] * 3, "photometric": 2, "samples": 3, "rows": 1}
    write_tiff(tmp_path / "x.tif", planes, planar=2, **tags)
    with pytest.raises(ImageError, match=r"x\.tif: a TIFF .* one after another"):
        read_image(tmp_path / "x.tif")
    beside = np.stack([np.frombuffer(plane, "<u2") for plane in planes], 1).tobytes()
    write_tiff(tmp_path / "x.tif", [beside], planar=1, **tags)
    assert read_image(tmp_path / "x.tif")[0, 0] == pytest.approx([1, 30000 / 65535, 0], abs=1e-5)


def test_twelve_bits_keep_their_range(tmp_path: Path):
    packed = bytes.fromhex("fff000 333fff")  # 4095, 0, 819, 4095
    write_tiff(tmp_path / "x.tif", [packed], width=4, height=1, bits=12, photometric=1, samples=1, rows=1)
    assert read_image(tmp_path / "x.tif", channels=1).ravel() == pytest.approx([1, 0, 0.2, 1], abs=1e-6)


def test_the_transparent_grey_of_sixteen_bits_is_composited(tmp_path: Path):
    Image.fromarray(np.array([[0, 257, 514]], np.uint16)).save(tmp_path / "x.png", transparency=257)
    assert read_image(tmp_path / "x.png", 1).ravel() == pytest.approx([0, 1, 2 / 255], abs=1e-5)
    assert read_image(tmp_path / "x.png", 1, "black").ravel() == pytest.approx([0, 0, 2 / 255], abs=1e-5)


def test_sixteen_bit_alpha_is_composited(tmp_path: Path):
    deep = np.zeros((1, 1, 4), np.uint16)
    deep[..., 2], deep[..., 3] = 65535, 16384  # OpenCV's order: blue, green, red, alpha
    cv2.imwrite(str(tmp_path / "x.png"), deep)
    share = 16384 / 65535
    assert read_image(tmp_path / "x.png")[0, 0] == pytest.approx([1, 1 - share, 1 - share], abs=1e-5)


def test_floats_outside_zero_and_one_are_refused_by_name(tmp_path: Path):
    Image.fromarray(np.array([[0.25, 0.5]], np.float32)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif", channels=1).ravel().tolist() == [0.25, 0.5]
    Image.fromarray(np.array([[0.5, 300]], np.float32)).save(tmp_path / "bad.tif")
    with pytest.raises(ImageError, match=r"bad\.tif.*\[0, 1\].*300"):
        read_image(tmp_path / "bad.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int, tmp_path: Path):
    turns = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("x.png", "x.tif"):
        Image.fromarray(GRADIENT).save(tmp_path / name, exif=exif)
        assert np.array_equal(read_image(tmp_path / name), turns[orientation](GRADIENT))
    Image.fromarray(GRADIENT[..., 0]).save(tmp_path / "grey.tif", exif=exif)
    assert np.array_equal(read_image(tmp_path / "grey.tif", channels=1), turns[orientation](GRADIENT[..., :1]))
    deep = Image.fromarray(GRADIENT[..., 0].astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.tif", exif=exif)
    expected = turns[orientation](GRADIENT[..., :1]) / 255
    assert read_image(tmp_path / "deep.tif", channels=1) == pytest.approx(expected, abs=1e-6)


def test_rubbish_for_exif_is_no_reason_to_lose_a_picture(tmp_path: Path):
    deep = GRADIENT[..., 0].astype(np.uint16) * 257
    for name, pixels in (("x.png", GRADIENT), ("grey.png", GRADIENT[..., 0]), ("deep.png", deep)):
        Image.fromarray(pixels).save(tmp_path / name, exif=b"rubbish")
        with pytest.raises(SyntaxError), Image.open(tmp_path / name) as image:
            image.getexif()
    assert np.array_equal(read_image(tmp_path / "x.png"), GRADIENT)
    assert np.array_equal(read_image(tmp_path / "grey.png", channels=1), GRADIENT[..., :1])
    assert np.array_equal(read_image(tmp_path / "deep.png", channels=1), np.float32(deep[..., None]) / 65535)
    cv2.imwrite(str(tmp_path / "colour.png"), np.repeat(deep[..., None], 3, axis=2))
    whole, chunk = (tmp_path / "colour.png").read_bytes(), (tmp_path / "x.png").read_bytes()
    start = chunk.index(b"eXIf") - 4
    (tmp_path / "colour.png").write_bytes(whole[:33] + chunk[start : start + 12 + len(b"rubbish")] + whole[33:])
    assert np.array_equal(read_image(tmp_path / "colour.png")[..., 0], np.float32(deep) / 65535)
    assert np.array_equal(read_rgb(tmp_path / "x.png").permute(1, 2, 0).numpy(), GRADIENT)


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_damaged_files_are_named(damage: str, tmp_path: Path):
    path = tmp_path / "broken.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no picture", "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(ImageError, match=r"broken\.png"):
        read_image(path)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
@pytest.mark.parametrize("limit", [3000, 1500])  # Pillow warns above its limit and fails above twice that
def test_what_to_do_about_a_picture_of_too_many_pixels_is_said(limit: int, kind: str, tmp_path: Path, monkeypatch):
    Image.new("RGB", (64, 60)).save(tmp_path / f"x.{kind}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    wanted = rf"x\.{kind}: 3,840 pixels, more than the limit of {limit:,}; cut it into smaller pictures first"
    with pytest.raises(ImageError, match=wanted):
        read_image(tmp_path / f"x.{kind}")


def test_pictures_are_found_in_sub_folders_whatever_the_case(tmp_path: Path):
    for name in ("b.JPG", "a/c.webp", "a/d.Tif", ".hidden/e.png", "notes.txt", "._f.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a/c.webp", "a/d.Tif", "b.JPG"]


def test_a_file_in_place_of_a_folder_is_not_called_missing(tmp_path: Path):
    (tmp_path / "ant.png").touch()
    with pytest.raises(FileNotFoundError, match=r"ant\.png is a file, where a folder of pictures is expected"):
        find_images(tmp_path / "ant.png")


@pytest.mark.parametrize("name", ["private", "lost+found"])
def test_a_sub_folder_that_cannot_be_read_is_named_unless_it_is_the_systems(name: str, tmp_path: Path, monkeypatch):
    (tmp_path / name).mkdir()
    (tmp_path / "a.png").touch()
    scandir = os.scandir

    def forbidden(folder: str):
        if Path(folder).name == name:
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr("os.scandir", forbidden)
    if name == "lost+found":
        assert find_images(tmp_path) == [tmp_path / "a.png"]
    else:
        with pytest.raises(PermissionError, match=rf"Permission denied: '{tmp_path / name}'"):
            find_images(tmp_path)


def test_missing_and_empty_folders_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no images in"):
        find_images(tmp_path)


def test_folders_behind_links_are_searched_once(tmp_path: Path, monkeypatch):
    for name in ("real/sub/1.png", "pictures/0.png", "pictures/.hidden/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "pictures" / "more").symlink_to("../real")
    (tmp_path / "real" / "sub" / "round").symlink_to("../../pictures")
    (tmp_path / "pictures" / "once_more").symlink_to("../real/sub")
    (tmp_path / "pictures" / "up").symlink_to("..")
    monkeypatch.chdir(tmp_path / "pictures")
    for folder in (tmp_path / "pictures", Path(".")):
        found = [path.resolve().relative_to(tmp_path).as_posix() for path in find_images(folder)]
        assert found == ["pictures/0.png", "real/sub/1.png"]


@pytest.mark.parametrize("names", [("0part", "1all"), ("1part", "0all")])
def test_links_that_overlap_hide_nothing(names: tuple[str, str], tmp_path: Path):
    for name in ("store/all/part/1.png", "store/all/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "train").mkdir()
    for name, target in zip(names, ("part", ""), strict=True):
        (tmp_path / "train" / name).symlink_to(tmp_path / "store" / "all" / target)
    assert sorted(path.name for path in find_images(tmp_path / "train")) == ["1.png", "2.png"]


def test_a_link_to_a_picture_that_is_not_there_is_named(tmp_path: Path):
    (tmp_path / "1.png").symlink_to(tmp_path / "annex" / "1.png")
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == [tmp_path / "1.png"]
    with pytest.raises(ImageError, match=r"cannot read .*1\.png"):
        read_image(tmp_path / "1.png")
