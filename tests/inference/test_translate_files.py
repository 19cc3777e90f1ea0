import io
import json
import os
import struct
import sys
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan import commands, devices
from cyclegan.commands import translate as command
from cyclegan.data.images import EXTENSIONS, ImageError
from cyclegan.inference.checkpoints.generator_file import load_generator, save_generator
from cyclegan.inference.files import translate
from cyclegan.inference.picture_files import picture_of
from cyclegan.inference.tiling.tiles import Tiling
from cyclegan.inference.translate import translate_tensor
from cyclegan.inference.translator import Translator
from cyclegan.inference.work_list import Job, WorkListError, plan
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from cyclegan.networks.winograd import WinogradConv2d


def main(arguments):
    return commands.run("cyclegan translate", command.main, arguments)


@pytest.fixture
def generator():
    network = initialize(build_generator({"name": "resnet", "width": 4, "blocks": 1}), gain=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture
def source(generator, tmp_path):
    path = tmp_path / "run" / "AtoB.safetensors"
    path.parent.mkdir()
    save_generator(path, generator, {"direction": "AtoB"})
    return str(path)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, *sides, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(*sides, seed)).save(path)
    return path


def plainly(generator, pixels):
    """The straightforward way, one picture at a time in float32."""
    image = torch.empty(1, 3, *pixels.shape[:2])  # of one pixel: contiguous only if made so
    image[0] = torch.tensor(pixels).permute(2, 0, 1) / 127.5 - 1
    result = translate_tensor(generator, image)[0].permute(1, 2, 0).numpy()
    return np.rint((result + 1) * 127.5).astype(np.uint8)


def same(result, expected):
    """But for values on the edge between two levels: the two ways lie in memory differently and round differently."""
    return np.abs(np.asarray(result).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("sides", [(1, 1), (1, 50), (2, 3), (7, 8), (31, 17), (103, 51)])
def test_every_picture_keeps_its_size(generator, sides):
    result = translate(generator, Image.fromarray(noise(*sides)), precision="fp32")
    assert result.size == sides[::-1]
    if sides != (1, 1):  # of one pixel repeated, instance norm leaves nothing but rounding, times 300
        assert same(result, plainly(generator, noise(*sides)))


def test_every_kind_of_picture_that_training_reads_is_translated(generator, tmp_path):
    for suffix in EXTENSIONS:
        mode = {".pgm": "L", ".pbm": "1", ".gif": "P"}.get(suffix, "RGB")
        picture = Image.fromarray(noise(16, 16)).convert(mode)
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / "in" / f"{suffix[1:]}{suffix}")
    report = translate(generator, tmp_path / "in", tmp_path / "out", format="keep")
    assert not report.failed and len(report.done) == len(EXTENSIONS)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"jpe.jpe", "jfif.jfif", "gif.gif.png", "pgm.pgm.png", "ppm.ppm"} <= written
    assert all(Image.open(path).size == (16, 16) for path in report.done)


def test_a_folder_keeps_its_tree_and_its_names(generator, source, tmp_path):
    save(tmp_path / "in" / "a.png", 20, 30)
    save(tmp_path / "in" / "deep" / "er" / "b.jpg", 21, 30)
    save(tmp_path / "in" / "deep" / "c d.webp", 20, 30)
    assert main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--precision", "fp32", "--batch", "2"]) == 0
    files = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*") if path.is_file()
    )
    assert files == [".translated.json", "a.png", "deep/c d.png", "deep/er/b.png"]
    result = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert same(result, plainly(generator, noise(20, 30)))


def test_formats_are_kept_if_asked(source, tmp_path):
    for name in ("a.png", "b.jpg", "c.tiff", "d.bmp"):
        save(tmp_path / "in" / name, 9, 9)
    assert main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--format", "keep"]) == 0
    for name, format in (("a.png", "PNG"), ("b.jpg", "JPEG"), ("c.tiff", "TIFF"), ("d.bmp", "BMP")):
        assert Image.open(tmp_path / "out" / name).format == format


def test_sixteen_bits_and_opacity_go_through(generator, source, tmp_path):
    import cv2

    deep = np.random.default_rng(0).integers(0, 65536, (12, 10, 4), dtype=np.uint16)
    deep[..., 3] = np.maximum(deep[..., 3], 1)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), deep)
    assert main([source, str(tmp_path / "in" / "a.png"), "-o", str(tmp_path / "out.png")]) == 0
    result = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert result.dtype == np.uint16
    assert np.array_equal(result[..., 3], deep[..., 3])
    assert len(np.unique(result[..., 0] % 257)) > 50  # 8 bits stretched to 16 would all be multiples of 257


def test_unreadable_files_are_listed_and_the_rest_is_done(source, tmp_path, capsys):
    save(tmp_path / "in" / "good.png", 16, 16)
    cut = save(tmp_path / "in" / "cut.png", 64, 64)
    cut.write_bytes(cut.read_bytes()[:3000])
    (tmp_path / "in" / "text.jpg").write_text("no picture")
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    save(tmp_path / "in" / "bomb.png", 300, 300)
    code = main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--max-pixels", "80000"])
    said = capsys.readouterr().err
    assert code == 1
    assert (tmp_path / "out" / "good.png").is_file()
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")] == ["good.png"]
    for name in ("cut.png", "text.jpg", "empty.png", "bomb.png"):
        assert sum(name in line for line in said.splitlines()) == 1
    assert "4 failed" in said


@pytest.mark.parametrize("cut", [[], ["--tile-above", "100", "--tile-side", "16"]])
def test_a_generator_that_gives_nan_paints_nothing_black(source, tmp_path, cut, capsys):
    generator = load_generator(source)
    generator.model[1].weight[0] = torch.nan
    save_generator(tmp_path / "nan.safetensors", generator, generator.about)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    assert main([str(tmp_path / "nan.safetensors"), str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), *cut]) == 1
    assert "a.png: the generator gives NaN" in capsys.readouterr().err
    assert not (tmp_path / "out" / "a.png").exists()


def test_a_header_that_promises_too_much_is_refused_before_decoding(source, tmp_path, capsys):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb)
    assert main([source, str(tmp_path / "bomb.png"), "-o", str(tmp_path / "out")]) == 1
    assert "bomb.png" in capsys.readouterr().err


def test_a_picture_of_twenty_thousand_pixels_a_side_is_cut(generator, source, tmp_path):
    save(tmp_path / "in" / "wide.png", 9, 20_000)
    assert main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--tile-above", "100000"]) == 0
    result = Image.open(tmp_path / "out" / "wide.png")
    assert same(result, plainly(generator, noise(9, 20_000)))


def test_a_second_call_goes_on_where_the_first_stopped(source, tmp_path, capsys):
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png", 16, 16)
    call = [source, str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    main(call)
    (tmp_path / "out" / "b.png").unlink()
    kept = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    capsys.readouterr()
    assert main(call) == 0
    assert "1 translated" in capsys.readouterr().err
    assert (tmp_path / "out" / "b.png").is_file()
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == kept
    os.utime(tmp_path / "in" / "a.png", (4e9, 4e9))  # changed since
    main(call)
    assert "1 translated" in capsys.readouterr().err


def test_results_of_two_generators_do_not_get_mixed(source, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", 16, 16)
    other = tmp_path / "other.safetensors"
    save_generator(other, build_generator({"name": "resnet", "width": 4, "blocks": 0}), {"direction": "AtoB"})
    main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert main([str(other), str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    assert "another generator" in capsys.readouterr().err
    assert main([str(other), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--overwrite"]) == 0


def test_several_devices_and_batches_give_what_one_gives(generator, tmp_path):
    for i in range(7):
        save(tmp_path / "in" / f"{i}.png", 16, 16 if i % 3 else 24, seed=i)
    report = translate(generator, tmp_path / "in", tmp_path / "out", device=["cpu", "cpu"], batch=3, precision="fp32")
    assert len(report.done) == 7
    for i in range(7):
        expected = plainly(generator, noise(16, 16 if i % 3 else 24, seed=i))
        result = Image.open(tmp_path / "out" / f"{i}.png")
        assert same(result, expected)


def test_large_pictures_go_through_tiles(generator, tmp_path):
    save(tmp_path / "in" / "a.png", 40, 50)
    tiling = Tiling(above=1000, side=16)
    report = translate(generator, tmp_path / "in", tmp_path / "out", tiling=tiling)
    assert not report.failed
    result = Image.open(tmp_path / "out" / "a.png")
    assert same(result, plainly(generator, noise(40, 50)))


@pytest.mark.parametrize("features", [{"sse2"}, {"sse2", "avx2"}])
def test_either_layout_gives_the_same(generator, features, monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: features)
    translator = Translator(generator, precision="fp32", tiling=Tiling(side=16))
    weight = max(translator.exact.parameters(), key=torch.numel)
    assert weight.is_contiguous(memory_format=torch.channels_last) == ("avx2" in features)
    images = torch.rand(2, 3, 24, 30) * 2 - 1
    assert torch.allclose(translator.tensor(images), translate_tensor(generator.eval(), images), atol=1e-5)
    assert same(translator.tiled(picture_of(noise(40, 50))).pixels, plainly(generator, noise(40, 50)))


@pytest.mark.parametrize(("features", "changed"), [({"avx", "avx2"}, 2), ({"avx"}, 0)])
def test_winograds_convolutions_give_the_same(features: set[str], changed: int, monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: features)
    generator = initialize(build_generator({"name": "resnet", "width": 32, "blocks": 1}), gain=0.05)
    translator = Translator(generator, "cpu", "fp32")
    assert [type(m) for m in translator.exact.modules()].count(WinogradConv2d) == changed
    images = torch.rand(2, 3, 130, 126) * 2 - 1
    assert torch.allclose(translator.tensor(images), translate_tensor(generator, images), atol=1e-4)
    assert not any(isinstance(m, WinogradConv2d) for m in generator.modules())


def test_bf16_stays_close(generator):
    pictures = [picture_of(noise(32, 32))]
    exact = Translator(generator, precision="fp32")(pictures)[0].pixels.astype(int)
    rough = Translator(generator, precision="bf16")(pictures)[0].pixels.astype(int)
    assert 0 < np.abs(exact - rough).mean() < 4


def test_standard_input_to_standard_output(generator, source, monkeypatch, capsysbinary):
    given = io.BytesIO()
    Image.fromarray(noise(10, 11)).save(given, "PNG")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.getvalue())))
    assert main([source, "-", "-o", "-", "--precision", "fp32"]) == 0
    result = Image.open(io.BytesIO(capsysbinary.readouterr().out))
    assert same(result, plainly(generator, noise(10, 11)))


@pytest.mark.parametrize(
    ("given", "words"),
    [(b"rubbish", "cannot read standard input: not a picture of a known kind"), (b"", "standard input is empty")],
)
def test_rubbish_on_standard_input_is_one_line(source, given, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert main([source, "-", "-o", "-"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"cyclegan translate: {words}") and said.count("\n") == 1


def test_patterns_are_expanded_below_their_fixed_part(source, tmp_path):
    save(tmp_path / "in" / "x" / "a.png", 9, 9)
    save(tmp_path / "in" / "y" / "b.png", 9, 9)
    assert main([source, str(tmp_path / "in" / "*" / "*.png"), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "x" / "a.png").is_file()
    assert (tmp_path / "out" / "y" / "b.png").is_file()


def test_nothing_is_written_outside_the_output_folder(source, tmp_path, capsys):
    secret = tmp_path / "secret"
    secret.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(secret, target_is_directory=True)
    save(tmp_path / "in" / "sub" / "a.png", 9, 9)
    save(tmp_path / "in" / "deeper" / "a..b" / "b.png", 9, 9)
    assert main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    assert "outside" in capsys.readouterr().err
    assert not list(secret.iterdir())
    assert (tmp_path / "out" / "deeper" / "a..b" / "b.png").is_file()


def test_inputs_named_with_dots_land_inside(tmp_path):
    save(tmp_path / "in" / "a.png", 9, 9)
    (tmp_path / "here").mkdir()
    jobs = plan([tmp_path / "here" / ".." / "in" / "a.png", tmp_path / "here" / ".." / "in"], tmp_path / "out")
    assert sorted(job.target for job in jobs) == [tmp_path / "out" / "a.png", tmp_path / "out" / "in" / "a.png"]


def test_results_below_an_input_folder_are_not_translated_again(tmp_path):
    save(tmp_path / "in" / "a.png", 9, 9)
    save(tmp_path / "in" / "out" / "a.png", 9, 9)
    assert [job.source for job in plan([tmp_path / "in"], tmp_path / "in" / "out")] == [tmp_path / "in" / "a.png"]


def test_names_that_differ_in_their_suffix_alone_stay_apart(tmp_path):
    save(tmp_path / "in" / "a.png", 9, 9)
    save(tmp_path / "in" / "a.jpg", 9, 9)
    assert [job.target.name for job in plan([tmp_path / "in"], tmp_path / "out")] == ["a.jpg.png", "a.png.png"]


def test_two_sources_for_one_result_and_results_over_sources_are_refused(tmp_path):
    one, two = save(tmp_path / "x" / "a.png", 9, 9), save(tmp_path / "y" / "a.png", 9, 9)
    with pytest.raises(WorkListError, match="would both become"):
        plan([one, two], tmp_path / "out", format="keep")
    with pytest.raises(WorkListError, match="overwrite its own source"):
        plan([tmp_path / "x"], tmp_path / "x")
    with pytest.raises(WorkListError, match="overwrite its own source"):
        plan([one], one)
    with pytest.raises(WorkListError, match="no format 'gif'"):
        plan([one], tmp_path / "out", format="gif")


def test_a_file_is_of_the_format_that_its_name_says_and_no_other_may_be_asked_for(source, tmp_path, capsys):
    one, out = save(tmp_path / "a.jpg", 9, 9), str(tmp_path / "x.jpg")
    for inputs, format in ((str(one), "png"), ("-", "png"), (str(one), "tif")):
        assert main([source, inputs, "-o", out, "--format", format]) == 1
        assert "x.jpg: its name says JPEG, the format" in capsys.readouterr().err
        assert not Path(out).exists()
    with pytest.raises(WorkListError, match="its name says PNG, the format JPEG"):
        plan([one], tmp_path / "x.png", format="keep")
    for format in ("jpeg", "keep"):
        assert main([source, str(one), "-o", out, "--format", format, "--overwrite"]) == 0
    assert Image.open(out).format == "JPEG"


def test_what_is_given_twice_is_translated_once(tmp_path, monkeypatch):
    save(tmp_path / "in" / "a.png", 9, 9)
    save(tmp_path / "in" / "b.png", 9, 9)
    monkeypatch.chdir(tmp_path)
    for inputs in (["in", "in"], ["in", tmp_path / "in"]):
        jobs = plan(inputs, "out")
        assert [job.target for job in jobs] == [Path("out/in/a.png"), Path("out/in/b.png")]
    assert [job.target for job in plan(["in/a.png", "in/*.png"], "out")] == [Path("out/a.png"), Path("out/b.png")]


def test_a_suffix_that_is_no_formats_makes_no_folder(tmp_path):
    one = save(tmp_path / "a.png", 9, 9)
    with pytest.raises(WorkListError, match=r"out\.pgn: no format to write; there are png, .*make it first"):
        plan([one], tmp_path / "out.pgn")
    assert plan([one], tmp_path / "out.v2")[0].target == tmp_path / "out.v2" / "a.png"
    (tmp_path / "out.pgn").mkdir()
    assert plan([one], tmp_path / "out.pgn")[0].target == tmp_path / "out.pgn" / "a.png"


def test_wrong_use_is_said_in_one_line(source, tmp_path, capsys):
    save(tmp_path / "a.png", 9, 9)
    for arguments in (
        [str(tmp_path / "nothing"), str(tmp_path / "a.png"), "-o", str(tmp_path / "out")],
        [source, str(tmp_path / "empty" / "*.png"), "-o", str(tmp_path / "out")],
        [source, str(tmp_path / "missing.png"), "-o", str(tmp_path / "out")],
        [source, str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--device", "abacus"],
        [source, str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--precision", "fp16", "--device", "cpu"],
    ):
        assert main(arguments) == 1
        assert "Traceback" not in capsys.readouterr().err


def test_paths_without_output_give_a_picture_and_folders_need_one(generator, tmp_path):
    path = save(tmp_path / "a.png", 9, 12)
    assert translate(generator, str(path)).size == (12, 9)
    assert [image.size for image in translate(generator, [path, path])] == [(12, 9)] * 2
    with pytest.raises(ImageError, match="name an output folder"):
        translate(generator, tmp_path)


def test_what_translate_does_not_take_is_said(generator, tmp_path):
    picture = Image.fromarray(noise(8, 8))
    for pictures in (picture, [picture], noise(8, 8)):
        with pytest.raises(WorkListError, match="output is for paths"):
            translate(generator, pictures, tmp_path / "out")
    with pytest.raises(devices.DeviceError, match="no precision 'half'; there are auto, fp32, bf16, fp16"):
        translate(generator, picture, precision="half")


def test_arrays_come_back_as_arrays_of_their_kind(generator):
    for dtype in (np.uint8, np.uint16, np.float32):
        array = (noise(8, 9) / 255).astype(dtype) if dtype == np.float32 else noise(8, 9).astype(dtype)
        result = translate(generator, array)
        assert result.dtype == dtype
        assert result.shape == array.shape


def test_a_stop_in_the_middle_leaves_no_half_file(source, tmp_path, monkeypatch):
    from cyclegan.inference import picture_files

    def full(*_, **__):
        raise OSError("No space left on device")

    save(tmp_path / "in" / "a.png", 9, 9)
    monkeypatch.setattr("cyclegan.inference.files.write_picture", full)
    assert picture_files.write_picture is not full
    assert main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    assert [path.name for path in Path(tmp_path / "out").iterdir()] == [".translated.json"]


def test_a_pattern_with_dots_behind_its_wildcard_is_refused(tmp_path):
    save(tmp_path / "in" / "x" / "a.png", 9, 9)
    save(tmp_path / "pics" / "a.png", 9, 9)
    with pytest.raises(WorkListError, match=r"no \.\. behind"):
        plan([f"{tmp_path}/in/*/../../pics/*.png"], tmp_path / "out")


def test_a_target_that_climbs_out_of_folders_yet_to_be_made_is_refused(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    job = Job(tmp_path / "a.png", out / "new" / ".." / ".." / "a.png", out)
    with pytest.raises(WorkListError, match="outside"):
        job.make_folder()


@pytest.mark.parametrize("option", [("--tile-overlap", "-1"), ("--quality", "0"), ("--quality", "101")])
def test_numbers_out_of_range_are_refused(source, tmp_path, option, capsys):
    save(tmp_path / "a.png", 9, 9)
    with pytest.raises(SystemExit):
        main([source, str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), *option])
    assert "expected a whole number from" in capsys.readouterr().err


def other_source(tmp_path):
    network = initialize(build_generator({"name": "resnet", "width": 4, "blocks": 1}), gain=0.5)
    save_generator(tmp_path / "other" / "AtoB.safetensors", network, {"direction": "AtoB"})
    return str(tmp_path / "other")


def test_a_generators_results_are_not_taken_for_anothers_after_part_of_them_was_overwritten(source, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    other, out = other_source(tmp_path), str(tmp_path / "out")
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png", 16, 16, seed=i)
    assert main([source, str(tmp_path / "in"), "-o", out]) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert main([other, str(tmp_path / "in" / "0.png"), "-o", out, "--overwrite"]) == 0  # as if it had been killed
    assert main([other, str(tmp_path / "in"), "-o", out]) == 0
    assert "2 translated" in capsys.readouterr().err.splitlines()[-1]
    assert all(path.read_bytes() != first[path.name] for path in (tmp_path / "out").glob("*.png"))
    assert main([other, str(tmp_path / "in"), "-o", out]) == 0
    assert "0 translated" in capsys.readouterr().err


def test_pictures_that_lie_in_the_output_folder_are_no_translations(source, tmp_path, capsys):
    for folder in ("in", "out"):
        save(tmp_path / folder / "a.png", 16, 16)
    assert main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    assert "out holds a.png, and nothing there tells that it is a translation" in capsys.readouterr().err
    assert main([source, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--overwrite"]) == 0


@pytest.mark.parametrize("given", ["FILE", "-"])
def test_a_named_file_that_is_there_is_not_replaced_without_being_asked(source, tmp_path, given, monkeypatch, capsys):
    picture, mine = save(tmp_path / "a.png", 16, 16), save(tmp_path / "mine.png", 9, 9)
    before = mine.read_bytes()
    call = [source, str(picture) if given == "FILE" else given, "-o", str(mine)]
    for more in ([], ["--overwrite"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(picture.read_bytes())))
        assert main([*call, *more]) == 0
        if not more:
            said = f"0 translated into {mine}, 1 was there already (--overwrite)\n"
            assert capsys.readouterr().err == said and mine.read_bytes() == before
    assert Image.open(mine).size == (16, 16)


def test_results_with_and_without_a_mask_are_told_apart(source, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", 16, 16)
    (tmp_path / "masks").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "masks" / "a.png")
    os.utime(tmp_path / "masks" / "a.png", (0, 0))
    given = [source, str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main(given) == 0
    assert main([*given, "--mask", str(tmp_path / "masks")]) == 1
    assert "region, mask or quality" in capsys.readouterr().err


def test_results_of_two_qualities_are_told_apart_where_there_is_one(source, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", 16, 16)
    given = [source, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--format"]
    assert main([*given, "jpg", "--quality", "90"]) == 0
    assert main([*given, "jpg", "--quality", "30"]) == 1
    assert "region, mask or quality" in capsys.readouterr().err
    assert main([*given, "png"]) == 0
    assert main([*given, "jpg", "--quality", "30", "--overwrite"]) == 0
    assert main([*given, "jpg", "--quality", "30"]) == 0
    assert "0 translated" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_is_not_filled_with_translations_of_its_own(source, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "in" / "a.jpg")
    assert main([source, str(tmp_path / "in"), "-o", str(tmp_path / "in")]) == 1
    assert "to be read and written" in capsys.readouterr().err
    assert main([source, str(tmp_path / "in" / "a.jpg"), "-o", str(tmp_path / "in")]) == 0


def test_names_that_differ_in_capitals_do_not_become_one_file(tmp_path, monkeypatch):
    for name in ("Foo.jpg", "foo.png"):
        save(tmp_path / "in" / name, 8, 8)
    for folds, expected in ((False, {"Foo.png", "foo.png"}), (True, {"Foo.jpg.png", "foo.png.png"})):
        monkeypatch.setattr("cyclegan.inference.work_list._folds_case", lambda _, folds=folds: folds)
        assert {job.target.name for job in plan([tmp_path / "in"], tmp_path / "out")} == expected
    with pytest.raises(WorkListError, match=r"o\.gif: no format to write"):
        plan([tmp_path / "in" / "foo.png"], tmp_path / "o.gif")


def test_what_fails_for_whatever_reason_is_tried_alone_and_lets_go_of_what_it_held(generator, tmp_path, monkeypatch):
    class Fail(Exception):
        """As onnxruntime's, which are no RuntimeErrors."""

    held, whole = [], Translator.tensor

    def tensor(translator, images, exact=False):
        assert all(given() is None for given in held)
        if len(images) > 1 or images.shape[3] == 12:
            activations = images * 2
            held.append(weakref.ref(activations))
            raise Fail("no memory")
        return whole(translator, images, exact)

    monkeypatch.setattr(Translator, "tensor", tensor)
    for i, width in enumerate((16, 16, 12)):
        save(tmp_path / "in" / f"{i}.png", 16, width)
    report = translate(generator, tmp_path / "in", tmp_path / "out", batch=2)
    assert len(report.done) == 2 and list(report.failed.values()) == ["no memory"]


@pytest.mark.parametrize("masked", [False, True])
def test_folders_of_earlier_versions_are_gone_on_with(masked, source, tmp_path, capsys):
    """Whose marks don't tell masks and quality, and were written again by each call: maybe newer than the results."""
    save(tmp_path / "in" / "a.png", 16, 16)
    save(tmp_path / "masks" / "a.png", 16, 16)
    given = [source, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--format", "jpg"]
    given += ["--mask", str(tmp_path / "masks")] if masked else []
    assert main(given) == 0
    mark = tmp_path / "out" / ".translated.json"
    told = json.loads(mark.read_text())
    mark.write_text(json.dumps({name: value for name, value in told.items() if name not in ("masked", "quality")}))
    os.utime(mark, (2**32, 2**32))
    assert main(given) == 0
    assert "0 translated" in capsys.readouterr().err
