import json

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan import commands
from cyclegan.commands import export as command
from cyclegan.inference.checkpoints.generator_file import load_generator, save_generator
from cyclegan.inference.deployment import export as exporting
from cyclegan.inference.deployment import exported
from cyclegan.inference.deployment.deployed import Deployed, resized
from cyclegan.inference.deployment.export import ExportError, Options, export, open_exported, verify, worst
from cyclegan.inference.deployment.hub import FILES, HubError, TranslationModel, write_hub_folder
from cyclegan.inference.translate import translate_tensor
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize

SIZES = ((40, 64), (21, 34))
BATCHES = (1, 3)


@pytest.fixture
def source(tmp_path):
    network = initialize(build_generator({"name": "resnet", "width": 4, "blocks": 1}), gain=0.3)
    about = {"direction": "AtoB", "input": {"channels": 3}, "output": {"channels": 3}, "run": "tiny", "images": 5}
    save_generator(tmp_path / "AtoB.safetensors", network, about)
    return tmp_path


@pytest.fixture
def generator(source):
    return load_generator(source)


CASES = [
    ("pt2", Options(uint8=True)),
    ("pt2", Options("bf16", pad=True, resize=(24, 28))),
    ("torchscript", Options()),
    ("torchscript", Options(pad=True, uint8=True, resize=(24, 28))),
    ("torchscript", Options("fp16", pad=True)),
    ("onnx", Options("fp16", uint8=True)),
    ("safetensors", Options()),
    ("safetensors", Options("bf16")),
]


@pytest.mark.parametrize("format, options", CASES, ids=str)
def test_exported_files_compute_what_the_network_computes(generator, tmp_path, format, options):
    path = tmp_path / "out" / f"g{exporting.SUFFIXES[format]}"
    contract = export(generator, path, format, options)
    found, allowed = worst(verify(generator, path, SIZES, BATCHES), contract)
    assert found < allowed
    assert exporting.read_contract(path)["largest_deviation"] > 0 or options == Options()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "onnx", "torchscript"])
def test_full_sizes_and_batches_deviate_by_rounding_only(generator, tmp_path, format):
    path = tmp_path / f"g{exporting.SUFFIXES[format]}"
    export(generator, path, format)
    deviations = verify(generator, path)
    assert len(deviations) == 6
    assert max(deviation.largest for deviation in deviations) < 1e-4


@pytest.mark.parametrize("format", ["pt2", "onnx", "torchscript"])
def test_padding_inside_takes_every_size(generator, tmp_path, format):
    path = tmp_path / f"g{exporting.SUFFIXES[format]}"
    export(generator, path, format, Options(pad=True))
    run = open_exported(path)
    for shape in ((1, 3, 2, 3), (2, 3, 8, 9), (1, 3, 31, 5), (3, 3, 33, 47)):
        images = torch.rand(shape) * 2 - 1
        assert torch.allclose(run(images), translate_tensor(generator, images), atol=1e-4), shape


def test_int8_is_calibrated_on_pictures_and_stays_in_sight(generator, pictures, tmp_path):
    path = tmp_path / "g.onnx"
    contract = export(generator, path, "onnx", Options("int8", pad=True, calibration=pictures / "testA"))
    deviations = verify(generator, path, SIZES, (1,))
    assert worst(deviations, contract)[0] < 0.2
    assert max(deviation.mean for deviation in deviations) > 1e-4  # or nothing was quantised
    assert b"QuantizeLinear" in path.read_bytes()


def test_resizing_inside_is_pillows():
    pixels = np.random.default_rng(0).uniform(-0.6, 0.6, (90, 140)).astype(np.float32)
    for height, width in ((24, 30), (90, 70), (120, 200)):
        ours = resized(torch.from_numpy(pixels)[None, None], height, width)[0, 0].numpy()
        theirs = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
        assert np.abs(ours - theirs.clip(-1, 1)).max() < 1e-4


def test_the_contract_tells_what_a_caller_must_know(source, generator):
    contract = export(generator, source / "a.pt2", "pt2", Options(uint8=True))
    assert json.loads((source / "a.pt2.json").read_text()) == contract
    assert contract["input"]["multiple"] == 4
    assert contract["input"]["range"] == [0, 255]
    assert contract["direction"] == "AtoB"
    assert contract["source"]["sha256"] == generator.about["sha256"]
    assert contract["largest_deviation"] is None


def test_verification_finds_a_file_of_other_weights(source, generator, capsys):
    path = source / "a.ts"
    arguments = [str(source), "--format", "torchscript", "-o", str(path), "--verify", "--sizes", "24x32"]
    assert commands.run("cyclegan export", command.main, arguments) == 0
    contract = exporting.read_contract(path)
    other = initialize(build_generator(generator.architecture), gain=0.3).eval()
    other.about = generator.about
    found, allowed = worst(verify(other, path, [(24, 32)], [1]), contract)
    assert found > allowed


def test_a_failed_verification_is_a_failed_command(source, monkeypatch, capsys):
    monkeypatch.setitem(exporting.TOLERANCES, "fp32", -1.0)
    arguments = [str(source), "--format", "torchscript", "--verify", "--sizes", "24x32"]
    assert commands.run("cyclegan export", command.main, arguments) == 1
    assert "deviates by" in capsys.readouterr().err
    assert (source / "export" / "AtoB.ts").is_file()


@pytest.mark.parametrize(
    "format, options, reason",
    [
        ("safetensors", Options(pad=True), "no graph"),
        ("pt2", Options(resize=(0, 0)), "at least 1 pixel"),
        ("pt2", Options("int8"), "needs --format onnx"),
        ("onnx", Options("bf16"), "bf16"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(generator, tmp_path, format, options, reason):
    with pytest.raises(ExportError, match=reason):
        export(generator, tmp_path / "x", format, options)


def test_a_missing_extra_is_named(generator, tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(exported.importlib, "import_module", absent)
    with pytest.raises(ExportError, match=r"pip install 'cyclegan\[export\]'"):
        export(generator, tmp_path / "x.onnx", "onnx")


def test_a_unet_exports_too(tmp_path):
    generator = initialize(build_generator({"name": "unet", "width": 2, "downs": 5}), gain=0.3).eval()
    generator.about = {"input": {"channels": 3}, "output": {"channels": 3}}
    for format in ("pt2", "torchscript"):
        path = tmp_path / f"u{exporting.SUFFIXES[format]}"
        contract = export(generator, path, format, Options(pad=True))
        found, allowed = worst(verify(generator, path, ((64, 96), (40, 75)), (2,)), contract)
        assert found < allowed


def test_a_hugging_face_folder_is_written_and_read_without_network(source, generator, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Image.new("RGB", (4, 4)).save(source / "sheet.png")
    folder = write_hub_folder(generator, source / "hub", {"AtoB": {"fid": 45.5}, "name": "x"}, source / "sheet.png")
    images = torch.rand(1, 3, 17, 30)
    expected = translate_tensor(generator, images)
    assert torch.equal(TranslationModel.from_pretrained(folder)(images), expected)
    loaded = load_generator(folder)
    assert torch.equal(translate_tensor(loaded, images), expected)
    assert loaded.about["direction"] == "AtoB"
    card = (folder / "README.md").read_text()
    assert "| AtoB.fid | 45.5 |" in card
    assert "(./picture.png)" in card
    assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "config.json", "README.md", "picture.png"}


def test_the_command_writes_a_hub_folder(source):
    (source / "metrics.json").write_text('{"kid": 0.03}')
    arguments = [str(source), "--format", "hub", "-o", str(source / "hub"), "--metrics", str(source / "metrics.json")]
    assert commands.run("cyclegan export", command.main, arguments) == 0
    assert "| kid | 0.03 |" in (source / "hub" / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors", "picture.png"])
def test_a_hub_folder_replaces_no_file_that_is_somebody_elses(source, name, capsys):
    hub, picture = source / "hub", source / "sheet.png"
    Image.new("RGB", (4, 4)).save(picture)
    hub.mkdir()
    (hub / name).write_text('{"about": "mine"}')
    arguments = [str(source), "--format", "hub", "-o", str(hub), "--picture", str(picture)]
    assert commands.run("cyclegan export", command.main, arguments) == 1
    said = f"{hub / name} is there, and not from an export; choose another folder, or --overwrite"
    assert capsys.readouterr().err == f"cyclegan export: {said}\n"
    assert [path.read_text() for path in hub.iterdir()] == ['{"about": "mine"}']
    assert commands.run("cyclegan export", command.main, [*arguments, "--overwrite"]) == 0
    assert load_generator(hub).about["direction"] == "AtoB"


def test_a_trained_network_is_not_replaced_unasked_and_an_earlier_export_is(source, capsys):
    trained, arguments = source / "AtoB.safetensors", [str(source), "--format", "safetensors", "-o"]
    before = trained.read_bytes()
    assert commands.run("cyclegan export", command.main, [*arguments, str(trained)]) == 1
    said = f"{trained} is there, and not from an export; choose another file, or --overwrite"
    assert capsys.readouterr().err == f"cyclegan export: {said}\n" and trained.read_bytes() == before
    for more in ([], ["--precision", "bf16"]):
        assert commands.run("cyclegan export", command.main, [*arguments, str(source / "x.safetensors"), *more]) == 0
    assert exporting.read_contract(source / "x.safetensors")["precision"] == "bf16"
    assert commands.run("cyclegan export", command.main, [*arguments, str(trained), "--overwrite"]) == 0
    assert exporting.read_contract(trained)["precision"] == "fp32"


def test_a_hub_folder_may_be_exported_again(source, generator):
    Image.new("RGB", (4, 4)).save(source / "sheet.png")
    for kid in (0.5, 0.25):
        write_hub_folder(generator, source / "hub", {"kid": kid}, source / "sheet.png")
    assert "| kid | 0.25 |" in (source / "hub" / "README.md").read_text()
    assert {path.name for path in (source / "hub").iterdir()} == {*FILES, "picture.png"}
    (source / "hub" / "README.md").write_text("# rewritten by hand")
    with pytest.raises(HubError, match=r"README\.md is there"):
        write_hub_folder(generator, source / "hub")


def test_deployed_in_eager_mode_is_translate(generator):
    images = torch.rand(2, 3, 21, 50) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(Deployed(generator, pad=True)(images), translate_tensor(generator, images), atol=1e-6)


def test_results_that_are_not_finite_fail_wherever_they_stand(source, generator, monkeypatch, capsys):
    contract = {"precision": "fp32", "input": {"dtype": "float32"}}
    sound, broken = exporting.Deviation(1, 24, 32, 0.0, 0.0), exporting.Deviation(3, 24, 32, float("nan"), float("nan"))
    for deviations in ([sound, broken], [broken, sound]):
        found, allowed = worst(deviations, contract)
        assert found > allowed
    monkeypatch.setattr(exporting, "open_exported", lambda path: lambda images: images * float("nan"))
    arguments = [str(source), "--format", "torchscript", "--verify", "--sizes", "24x32"]
    assert commands.run("cyclegan export", command.main, arguments) == 1
    assert "not finite" in capsys.readouterr().err
    assert exporting.read_contract(source / "export" / "AtoB.ts")["largest_deviation"] is None


@pytest.mark.parametrize(
    ("format", "more", "words"),
    [
        ("hub", ["--style-input"], "--format hub takes no --style-input; leave it out"),
        ("hub", ["--pad", "--uint8", "--precision", "fp16"], "takes no --precision, --pad, --uint8"),
        ("torchscript", ["--push", "somebody/x"], "--format torchscript takes no --push"),
        ("torchscript", ["--calibration", "x"], "--calibration is for --precision int8"),
        ("torchscript", ["--sizes", "24x32"], "--verify tries"),
        ("torchscript", [], "is known by its .ts"),
    ],
)
def test_what_a_format_would_ignore_is_refused(source, format, more, words, capsys):
    given = [str(source), "--format", format, "-o", str(source / "refused"), *more]
    assert commands.run("cyclegan export", command.main, given) == 1
    assert words in capsys.readouterr().err and not (source / "refused").exists()


@pytest.mark.parametrize("resize", [(101, 152), (3, 3), (4, 8)])
def test_sides_to_resize_to_are_those_that_the_generator_takes(generator, tmp_path, resize):
    with pytest.raises(ExportError, match=rf"--resize {resize[0]} {resize[1]}: .*multiples of 4, from 8 on"):
        export(generator, tmp_path / "x.ts", "torchscript", Options(resize=resize))
    path = tmp_path / "padded.ts"
    export(generator, path, "torchscript", Options(pad=True, resize=resize))
    assert open_exported(path)(torch.zeros(1, 3, 30, 40)).shape == (1, 3, *resize)


@pytest.mark.parametrize("sides", [(1, 1), (2, 5), (3, 4)])
def test_generators_that_shrink_nothing_take_small_pictures(tmp_path, sides):
    network = initialize(build_generator({"name": "resnet", "width": 2, "blocks": 1, "downs": 0}), gain=0.3)
    about = {"direction": "AtoB", "input": {"channels": 3}, "output": {"channels": 3}}
    save_generator(tmp_path / "AtoB.safetensors", network, about)
    generator, image = load_generator(tmp_path / "AtoB.safetensors"), torch.rand(1, 3, *sides) * 2 - 1
    expected = translate_tensor(generator, image)
    assert expected.shape == image.shape
    export(generator, tmp_path / "x.ts", "torchscript", Options(pad=True))
    assert torch.allclose(open_exported(tmp_path / "x.ts")(image), expected, atol=1e-5)


def test_an_upload_that_fails_without_a_word_is_one_line(generator, tmp_path, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refused)
    with pytest.raises(HubError, match="is written, but not uploaded to me/x: ConnectionError"):
        write_hub_folder(generator, tmp_path / "hub", push_to="me/x")


def test_a_hugging_face_card_has_its_directions_numbers_and_no_folders(generator, tmp_path):
    generator.about = {**generator.about, "config": {"data": {"root": "/home/me/horses", "A": {"train": "x/y"}}}}
    scores = {"MAE": {"untouched": 0.5, "translated": 0.25}}
    write_hub_folder(generator, tmp_path / "hub", {"AtoB": {"scores": scores, "images": 3}, "BtoA": {"scores": scores}})
    card, config = ((tmp_path / "hub" / name).read_text() for name in ("README.md", "config.json"))
    assert "| MAE | 0.25 |" in card and "untouched" not in card and "BtoA" not in card
    assert "/home/me" not in config and '"horses"' in config and '"x/y"' in config
