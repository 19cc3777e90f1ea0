import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan.data.images import ImageError
from cyclegan.inference.picture_files import (
    Picture,
    picture_of,
    pixel_limit,
    read_picture,
    to_pillow,
    write_picture,
)

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = np.random.default_rng(0).integers(0, 65536, (5, 7, 4), dtype=np.uint16)


def written(picture, path, format):
    with path.open("wb") as file:
        write_picture(picture, file, format)
    return path


@pytest.mark.parametrize("format, suffix", [("PNG", "png"), ("TIFF", "tif")])
@pytest.mark.parametrize("channels, alpha", [(1, False), (1, True), (3, False), (3, True)])
def test_sixteen_bits_survive_as_another_reader_sees_them(tmp_path, format, suffix, channels, alpha):
    picture = Picture(
        DEEP[..., :channels].astype(np.float32) / 65535, DEEP[..., 3].astype(np.float32) / 65535 if alpha else None
    )
    path = written(picture, tmp_path / f"deep.{suffix}", format)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(5, 7, -1)
    assert read.dtype == np.uint16
    if channels == 3:
        assert np.array_equal(read[..., 2::-1], DEEP[..., :3])
    else:
        assert np.array_equal(read[..., 0], DEEP[..., 0])
    if alpha:
        assert np.array_equal(read[..., -1], DEEP[..., 3])


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.ppm"])
def test_reading_gives_back_sixteen_bits_that_were_written(tmp_path, name):
    pixels = DEEP[..., :3].astype(np.float32) / 65535
    format = {"png": "PNG", "tif": "TIFF", "ppm": "PPM"}[name[-3:]]
    path = written(Picture(pixels, profile=PROFILE), tmp_path / name, format)
    read = read_picture(path)
    assert np.array_equal(np.rint(read.pixels * 65535), DEEP[..., :3])
    assert read.profile == (PROFILE if name != "deep.ppm" else None)


def test_profile_exif_and_opacity_survive_and_the_picture_stands_upright(tmp_path):
    image = Image.fromarray(DEEP[..., :3].astype(np.uint8))
    image.putalpha(Image.fromarray(DEEP[..., 3].astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    image.save(tmp_path / "a.png", icc_profile=PROFILE, exif=exif)
    path = written(read_picture(tmp_path / "a.png"), tmp_path / "b.png", "PNG")
    with Image.open(path) as result:
        assert result.size == (5, 7)
        assert result.info["icc_profile"] == PROFILE
        assert result.getexif()[0x010F] == "Camera"
        assert 0x0112 not in result.getexif()
        expected = np.rot90(DEEP[..., 3].astype(np.uint8), -1)  # orientation 6: turn clockwise
        assert np.array_equal(np.asarray(result.getchannel("A")), expected)


def test_a_sixteen_bit_png_keeps_exif(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    picture = Picture(DEEP[..., :3].astype(np.float32) / 65535, exif=exif.tobytes())
    with Image.open(written(picture, tmp_path / "a.png", "PNG")) as image:
        assert image.getexif()[0x010F] == "Camera"


def test_a_profile_for_other_channels_goes(tmp_path):
    grey = Picture(np.zeros((2, 2, 1), np.uint8), profile=PROFILE).with_pixels(np.zeros((2, 2, 1), np.uint8))
    assert grey.profile is None
    assert Picture(np.zeros((2, 2, 3), np.uint8), profile=PROFILE).with_pixels(np.zeros((1, 1, 3))).profile == PROFILE


@pytest.mark.parametrize("format", ["JPEG", "BMP", "PPM"])
def test_formats_without_opacity_leave_it_out(format):
    file = io.BytesIO()
    write_picture(Picture(np.full((4, 4, 3), 99, np.uint8), np.zeros((4, 4), np.uint8)), file, format)
    assert Image.open(file).mode == "RGB"


def test_a_picture_above_the_limit_is_refused_by_its_header(tmp_path):
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    for limit in (2999, 1000):
        with pixel_limit(limit), pytest.raises(ImageError, match=r"a\.png"):
            read_picture(tmp_path / "a.png")
    with pixel_limit(3000):
        assert read_picture(tmp_path / "a.png").size == (50, 60)


def test_pictures_in_memory_keep_their_values():
    deep = picture_of(DEEP[..., :3])
    assert np.array_equal(np.rint(deep.pixels * 65535), DEEP[..., :3])
    assert picture_of(np.zeros((2, 3), np.uint8), channels=3).pixels.shape == (2, 3, 3)
    image = Image.fromarray(DEEP[..., :3].astype(np.uint8))
    assert np.array_equal(np.asarray(to_pillow(picture_of(image))), np.asarray(image))
    with pytest.raises(ImageError, match=r"\(2, 2, 5\)"):
        picture_of(np.zeros((2, 2, 5), np.uint8))
    with pytest.raises(ImageError, match=r"\[0, 1\]"):
        picture_of(np.full((2, 2, 3), 2.0))


def test_turning_a_picture_in_memory_upright_leaves_the_original_alone():
    image = Image.new("RGB", (4, 2))
    image.getexif()[0x0112] = 6
    assert picture_of(image).size == (4, 2)
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "RGB"])
@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_a_tiffs_own_layout_does_not_go_into_its_translation(tmp_path, mode, suffix):
    image = Image.fromarray(np.repeat(np.arange(24, dtype=np.uint8)[:, None, None] * 10, 32, 1).repeat(3, 2))
    tags = {0x0112: 6, 0x010F: "Camera"}
    image.convert(mode).save(tmp_path / "in.tif", tiffinfo=tags)
    picture = read_picture(tmp_path / "in.tif")
    path = written(picture, tmp_path / f"out.{suffix}", {"tif": "TIFF", "jpg": "JPEG"}[suffix])
    with Image.open(path) as read:
        assert read.size == (24, 32)
        difference = np.abs(np.asarray(read.convert("RGB"), int) - picture.pixels)
        assert difference.max() == 0 if suffix == "tif" else difference.mean() < 8  # palettes dither
        assert read.getexif().get(0x0112, 1) == 1
        assert read.getexif()[0x010F].rstrip("\0") == "Camera"


def test_pillows_deep_pictures_in_memory_keep_their_range():
    values = np.array([[0, 1000], [30000, 65535]])
    for image in (Image.fromarray(values.astype(np.int32)), Image.fromarray(values.astype(np.uint16))):
        assert np.array_equal(np.rint(picture_of(image, 1).pixels[..., 0] * 65535), values)
    floats = Image.fromarray((values / 65535).astype(np.float32))
    assert np.allclose(picture_of(floats).pixels[..., 2], values / 65535, atol=1e-7)


def test_grey_of_colours_in_memory_is_pillows():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    apart = picture_of(pixels, 1).pixels[..., 0] - np.asarray(Image.fromarray(pixels).convert("L"), int)
    assert np.abs(apart).max() <= 1 and np.abs(apart.mean()) < 0.01


def test_sixteen_bit_tiffs_are_read_as_their_tags_say(tmp_path):
    grey = DEEP[..., 0]
    Image.fromarray(65535 - grey).save(tmp_path / "white.tif", tiffinfo={262: 0})
    assert np.array_equal(np.rint(read_picture(tmp_path / "white.tif", 1).pixels[..., 0] * 65535), grey)
    colours, share = DEEP[..., :3] / 65535, np.linspace(0.2, 1, DEEP.shape[1])[None, :, None]
    for extra, given in ((0, colours), (1, colours * share), (2, colours)):
        pixels = np.concatenate([given, np.broadcast_to(share, (*grey.shape, 1))], 2)
        whole = tifffile_like(tmp_path / "rgbx.tif", np.rint(pixels * 65535).astype(np.uint16), extra)
        picture = read_picture(whole)
        expected = colours if extra == 0 else colours * share + 1 - share  # on white
        assert np.abs(picture.pixels - expected).max() < 1e-4, extra
        assert (picture.alpha is None) == (extra == 0)


def tifffile_like(path, pixels, extra):
    """Baseline TIFF of one strip, little-endian, four samples of 16 bits: written byte by byte, with ExtraSamples."""
    height, width, samples = pixels.shape
    data = pixels.astype("<u2").tobytes()
    bits_at = 8 + len(data)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, samples, bits_at), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, len(data)), (338, 3, 1, extra)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    start = struct.pack("<2sHI", b"II", 42, bits_at + 2 * samples)
    bits = struct.pack(f"<{samples}H", *[16] * samples)
    path.write_bytes(start + data + bits + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0))
    return path
