import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan.data.images import ImageError
from cyclegan.inference import banded_files, files, large_files
from cyclegan.inference.banded_files import open_banded, read_banded, write_banded
from cyclegan.inference.exif import about, png_chunk
from cyclegan.inference.files import translate_files
from cyclegan.inference.picture_files import Picture, read_picture, write_picture
from cyclegan.inference.tiling import scratch
from cyclegan.inference.tiling.scratch import ScratchError, release, scratch_array
from cyclegan.inference.tiling.tiles import Tiling
from cyclegan.inference.translator import Translator
from cyclegan.inference.work_list import Job
from tests.inference.test_translate_files import generator, main, noise, save, source  # noqa: F401

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WHEN = "2026:01:02 03:04:05"
DEEP = np.random.default_rng(0).integers(0, 65536, (70, 20, 4), dtype=np.uint16)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "Camera"
    tags.get_ifd(0x8769)[36867] = WHEN
    return tags.tobytes()


def translated(generator, path, target, mask=None, pillow=False, mode="exact"):  # noqa: F811
    """`target` as Pillow or the bands of libvips make it, with the other way shut."""
    translator = Translator(generator, precision="fp32", tiling=Tiling(mode, above=100, side=16, overlap=4))
    with pytest.MonkeyPatch.context() as patch:
        if pillow:
            patch.setattr(banded_files, "vips", lambda: None)
        else:
            patch.setattr(files, "read_picture", lambda *_: pytest.fail("read by Pillow"))
        report = translate_files([translator], [Job(path, target, mask=mask)])
    assert report.failed == {}
    return target


def alike(one, other):
    """All that a picture is, and where the file says how it is seen."""
    with Image.open(one) as image, Image.open(other) as second:
        assert image.mode == second.mode
        assert second.getexif().get(0x0112, 1) == 1
    one, other = read_picture(one), read_picture(other)
    assert one.pixels.dtype == other.pixels.dtype and np.array_equal(one.pixels, other.pixels)
    assert (one.alpha is None) == (other.alpha is None)
    assert one.alpha is None or np.array_equal(one.alpha, other.alpha)
    assert one.profile == other.profile


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_as_from_pillow(generator, tmp_path, orientation):  # noqa: F811
    Image.fromarray(noise(70, 20)).save(tmp_path / "a.png", exif=exif(orientation), icc_profile=PROFILE)
    banded = translated(generator, tmp_path / "a.png", tmp_path / "b.png")
    alike(translated(generator, tmp_path / "a.png", tmp_path / "c.png", pillow=True), banded)
    profile, kept, turned = about(banded)
    assert (profile, turned) == (PROFILE, 1)
    known = Image.Exif()
    known.load(kept)
    assert (known[0x010F], known.get_ifd(0x8769)[36867]) == ("Camera", WHEN)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix, result", [("png", "tif"), ("tif", "png"), ("tif", "jpg")])
def test_every_kind_comes_out_as_from_pillow(generator, tmp_path, mode, suffix, result):  # noqa: F811
    layers = {"LA": noise(70, 20)[..., :2], "RGBA": np.dstack([noise(70, 20), noise(70, 20, 1)[..., 0]])}
    image = Image.fromarray(layers[mode]) if mode in layers else Image.fromarray(noise(70, 20)).convert(mode)
    image.save(tmp_path / f"a.{suffix}", exif=exif(6))
    banded = translated(generator, tmp_path / f"a.{suffix}", tmp_path / f"b.{result}")
    alike(translated(generator, tmp_path / f"a.{suffix}", tmp_path / f"c.{result}", pillow=True), banded)
    with Image.open(banded) as read:
        assert read.size == (70, 20)
        assert read.getexif()[0x010F] == "Camera"
        assert read.getexif().get_ifd(0x8769)[36867] == WHEN


@pytest.mark.parametrize("channels, alpha", [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_come_out_as_from_pillow(generator, tmp_path, suffix, channels, alpha):  # noqa: F811
    values = DEEP.astype(np.float32) / 65535
    picture = Picture(values[..., :channels], values[..., 3] if alpha else None, exif=exif(1))
    with (tmp_path / f"a.{suffix}").open("wb") as file:
        write_picture(picture, file, {"png": "PNG", "tif": "TIFF"}[suffix])
    banded = translated(generator, tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}")
    alike(translated(generator, tmp_path / f"a.{suffix}", tmp_path / f"c.{suffix}", pillow=True), banded)
    assert read_picture(banded).deep
    with Image.open(banded) as read:
        assert read.getexif()[0x010F] == "Camera"


def test_transparent_colours_and_thumbnail_statistics_too(generator, tmp_path):  # noqa: F811
    Image.fromarray(noise(70, 20)).quantize(8).save(tmp_path / "a.png", transparency=3)
    pillow = translated(generator, tmp_path / "a.png", tmp_path / "b.png", mode="thumbnail", pillow=True)
    banded = translated(generator, tmp_path / "a.png", tmp_path / "c.png", mode="thumbnail")
    alike(pillow, banded)
    assert read_picture(banded).alpha is not None


def test_jpeg_comes_out_as_from_pillow(generator, tmp_path):  # noqa: F811
    smooth = Image.fromarray(noise(4, 4)).resize((70, 40), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", exif=exif(6), icc_profile=PROFILE)
    one = translated(generator, tmp_path / "a.jpg", tmp_path / "b.jpg", pillow=True)
    other = translated(generator, tmp_path / "a.jpg", tmp_path / "c.jpg")
    assert np.abs(read_picture(one).pixels.astype(int) - read_picture(other).pixels).max() <= 2  # two libraries' JPEG
    assert about(other)[0] == PROFILE and b"Camera" in about(other)[1]


@pytest.mark.parametrize("suffix", ["png", "webp"])  # the latter is read by Pillow
def test_masks_are_pasted_in_bands(generator, tmp_path, suffix):  # noqa: F811
    path = save(tmp_path / "a.png", 70, 20)
    mask = np.zeros((70, 20), np.uint8)
    mask[50:] = 255
    Image.fromarray(mask).save(tmp_path / f"m.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    plain = read_picture(translated(generator, path, tmp_path / "b.png")).pixels
    result = read_picture(translated(generator, path, tmp_path / "c.png", mask=tmp_path / f"m.{suffix}")).pixels
    assert np.array_equal(result[:50], noise(70, 20)[:50]) and np.array_equal(result[50:], plain[50:])
    assert not np.array_equal(plain[50:], noise(70, 20)[50:])


@pytest.mark.parametrize("name, mode", [("a.tif", "CMYK"), ("a.jpg", "CMYK"), ("a.webp", "RGB"), ("a.bmp", "RGB")])
def test_what_would_come_out_otherwise_is_for_pillow(tmp_path, name, mode):
    Image.fromarray(noise(20, 20)).convert(mode).save(tmp_path / name)
    assert open_banded(tmp_path / name) is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_cut_and_damaged_files_fail_in_one_line_and_leave_nothing(generator, tmp_path, suffix, caplog):  # noqa: F811
    Image.fromarray(noise(300, 40)).save(tmp_path / f"a.{suffix}")
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
    translator = Translator(generator, tiling=Tiling(above=100, side=64))
    out = tmp_path / "out"
    report = translate_files([translator], [Job(tmp_path / f"a.{suffix}", out / "b.png", out)])
    ((_, reason),) = report.failed.items()
    assert f"a.{suffix}" in reason and "\n" not in reason
    assert [path.name for path in out.iterdir()] == [files.MARK]
    assert not caplog.records  # which would be printed


def test_too_little_scratch_space_is_said(generator, tmp_path, monkeypatch):  # noqa: F811
    path = save(tmp_path / "a.png", 70, 20)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: scratch.shutil._ntuple_diskusage(10, 10, 1000))
    translator = Translator(generator, tiling=Tiling(above=100, side=16, scratch=tmp_path))
    with pytest.raises(ScratchError, match=r"0\.0 MB more are needed and 0\.0 MB are free"):
        large_files.translate_large(translator, Job(path, tmp_path / "b.png"), 95)


@pytest.mark.parametrize(("place", "words"), [("nowhere", "No such file"), ("a.png", "Not a directory")])
def test_a_scratch_folder_is_looked_at_before_the_pictures(source, tmp_path, place, words, capsys):  # noqa: F811
    path = save(tmp_path / "a.png", 9, 9)
    call = [source, str(path), "-o", str(tmp_path / "out"), "--scratch", str(tmp_path / place)]
    assert main(call) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"cyclegan translate: --scratch {tmp_path / place}: {words}") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("count", "words"), [(1_500_000_000, "1.5 GB"), (20_000_000, "20.0 MB")])
def test_sizes_below_a_gigabyte_are_told_in_megabytes(count, words, monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: scratch.shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(OSError, match=f"^{words} more are needed"):
        scratch.check_space(None, count)


def test_without_libvips_pillow_does_it_and_a_large_one_is_told(source, tmp_path, monkeypatch, capsys):  # noqa: F811
    path = save(tmp_path / "a.png", 70, 20)
    for module in (banded_files, large_files):
        monkeypatch.setattr(module, "vips", lambda: None)
    call = [source, str(path), "-o", str(tmp_path / "b.png"), "--tile-above", "100", "--overwrite"]
    assert main(call) == 0
    assert "large" not in capsys.readouterr().err
    monkeypatch.setattr(large_files, "MANY", 1000)
    assert main(call) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "large" in line]
    assert line == f"cyclegan translate: {path} is held whole in memory: pip install 'cyclegan[large]' mends it"


def test_reading_and_writing_hold_bands_only(tmp_path):
    Image.new("RGB", (700, 4000), "teal").save(tmp_path / "a.png")
    tracemalloc.start()
    picture = read_banded(open_banded(tmp_path / "a.png"), tmp_path / "a.png", 3, "white", tmp_path)
    with (tmp_path / "b.png").open("wb") as file:
        write_banded(picture, file, "PNG", 95, tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < picture.pixels.nbytes / 5
    assert Image.open(tmp_path / "b.png").convert("RGB").getpixel((699, 3999)) == (0, 128, 128)


def test_a_bigtiff_carries_exif(tmp_path, monkeypatch):
    monkeypatch.setattr(banded_files, "BIG", 0)
    pixels = scratch_array((70, 20, 3), np.uint16, tmp_path)
    pixels[...] = DEEP[..., :3]
    with (tmp_path / "a.tif").open("wb") as file:
        write_banded(Picture(pixels, exif=exif(1), profile=PROFILE), file, "TIFF", 95, tmp_path)
    assert (tmp_path / "a.tif").read_bytes()[2] == 43
    with Image.open(tmp_path / "a.tif") as image:
        assert image.getexif()[0x010F] == "Camera"
        assert image.getexif().get_ifd(0x8769)[36867] == WHEN
    assert np.array_equal(np.rint(read_picture(tmp_path / "a.tif").pixels * 65535), DEEP[..., :3])


def test_more_exif_than_a_jpeg_holds_is_said_before_the_translation(generator, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(large_files, "_translated", lambda *_: pytest.fail("translated"))
    tags = Image.Exif()
    tags[0x010E] = "long " * 14_000
    Image.fromarray(noise(70, 20)).save(tmp_path / "a.png", exif=tags)
    translator = Translator(generator, tiling=Tiling(above=100, side=16))
    with pytest.raises(ImageError, match=r"cannot write .*b\.jpg: 7\d{4} bytes of EXIF"):
        large_files.translate_large(translator, Job(tmp_path / "a.png", tmp_path / "b.jpg"), 95)


def test_exif_behind_the_pixels_of_a_png_is_found(tmp_path):
    path = save(tmp_path / "a.png", 30, 20)
    whole = path.read_bytes()
    behind = png_chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0"))
    path.write_bytes(whole[:-12] + behind + whole[-12:])
    assert about(path)[2] == 6
    assert read_banded(open_banded(path), path, 3, "white", tmp_path).size == (20, 30)
    assert np.array_equal(read_picture(path).pixels, np.rot90(noise(30, 20), -1))


def test_a_moving_png_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(noise(30, 20, seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, noise(30, 20))
    banded = read_banded(open_banded(tmp_path / "a.png"), tmp_path / "a.png", 3, "white", tmp_path)
    assert np.array_equal(banded.pixels, noise(30, 20))


def test_released_pages_keep_what_was_written(tmp_path):
    array = scratch_array((64, 64), np.uint8, tmp_path)
    array[3:5] = 7
    release(array, array[3:5])
    assert array.sum() == 7 * 2 * 64
    copied = np.memmap(tmp_path / "c", np.uint8, "w+", shape=(4096,))
    copied.flush()
    private = np.memmap(tmp_path / "c", np.uint8, "c", shape=(4096,))
    private[:] = 1
    release(private)
    assert private.all()
