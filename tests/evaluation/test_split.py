from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cyclegan import commands
from cyclegan.commands import fid, test
from cyclegan.config import load_config
from cyclegan.data.images import find_images
from cyclegan.evaluation import split
from cyclegan.evaluation.counterparts import CounterpartError
from cyclegan.evaluation.directions import SplitError
from cyclegan.evaluation.evaluator import evaluate
from cyclegan.evaluation.extractors import Extractor, from_callable
from cyclegan.evaluation.features import fingerprint
from cyclegan.evaluation.pairs import pairs_by_name
from cyclegan.evaluation.sides import pictures_of
from cyclegan.evaluation.split import translate_split
from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.inference.checkpoints.generator_file import GeneratorFileError, load_generator, save_generator
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from tests.conftest import write_pictures


@pytest.fixture
def run(options: dict) -> Path:
    """A run whose generators are identities, on a set in which test names match."""
    config = load_config({**options, "generator": {"name": "resnet", "width": 2, "blocks": 0, "skip": True}})
    config.folder.mkdir(parents=True)
    (config.folder / "config.yaml").write_text(config.to_yaml())
    pictures = {"channels": 3, "background": "white"}
    for direction in ("AtoB", "BtoA"):
        generator = build_generator({"name": "resnet", "width": 2, "blocks": 0, "skip": True})
        generator.start_as_identity()
        about = {"direction": direction, "input": pictures, "output": pictures, "images": 7, "run": "tiny"}
        save_generator(config.folder / f"{direction}.safetensors", generator, about)
    return config.folder


def data_root(run: Path) -> Path:
    return load_config(run / "config.yaml").data.root


def make_brighter(path: Path) -> None:
    """Rewrite the identity at `path` so that it adds 0.5: its skip adds what the last layer gives, now a constant."""
    generator = load_generator(path)
    generator.model[-2].bias.fill_(0.5)
    save_generator(path, generator, generator.about)


def pixels_of(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path), float) / 127.5 - 1 for path in sorted(folder.glob("*.png"))]


def test_contents_are_painted_in_the_target_domains_styles_which_stand_beside_them(run: Path):
    for direction in ("AtoB", "BtoA"):
        (run / f"{direction}.safetensors").unlink()
    torch.manual_seed(0)
    generator = initialize(build_generator({"name": "adain", "layer": "relu2_1"}), "kaiming", gain=0.7)
    pictures = {"channels": 3, "background": "white"}
    about = {"direction": "AtoB", "input": pictures, "output": pictures, "images": 7, "run": "tiny"}
    save_generator(run / "AtoB.safetensors", generator, about)
    next(iter(sorted((data_root(run) / "testB").iterdir()))).unlink()  # two styles for three contents
    results = translate_split(run, paired=False)
    contents, styles = (find_images(data_root(run) / folder) for folder in ("testA", "testB"))
    for made, content, style in zip(
        pixels_of(run / "test" / "AtoB"), contents, [styles[0], styles[1], styles[0]], strict=True
    ):
        x, y = (
            torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 127.5 - 1 for path in (content, style)
        )
        assert np.abs(made - generator.eval()(x, y)[0].detach().permute(1, 2, 0).numpy()).max() < 0.02
    page = (run / "test" / "index.html").read_text()
    assert "<span>input</span><span>style</span><span>output</span>" in page
    assert page.count("<img") == 9 and "identity_error" in results["AtoB"]["scores"]


def test_every_picture_keeps_name_folder_and_size(run: Path):
    root = data_root(run)
    write_pictures(root / "testA" / "deep" / "er", 1, side=41)
    Image.new("RGB", (30, 17)).save(root / "testA" / "00.jpg")
    Image.new("L", (5, 3)).save(root / "testA" / "grey.bmp")
    translate_split(run, direction="AtoB")
    written = {path.relative_to(run / "test" / "AtoB").as_posix() for path in (run / "test" / "AtoB").rglob("*.png")}
    assert written == {"00.jpg.png", "00.png.png", "01.png", "02.png", "grey.png", "deep/er/00.png"}
    assert Image.open(run / "test" / "AtoB" / "00.jpg.png").size == (30, 17)
    assert Image.open(run / "test" / "AtoB" / "grey.png").size == (5, 3)
    assert Image.open(run / "test" / "AtoB" / "deep" / "er" / "00.png").size == (41, 41)


def test_an_identity_scores_like_the_untouched_input_and_as_computed_from_the_files(run: Path):
    result = translate_split(run, paired=True)["AtoB"]
    root = data_root(run)
    pairs = [[np.asarray(Image.open(root / d / f"{i:02d}.png"), float) for d in ("testA", "testB")] for i in range(3)]
    expected = np.mean([np.abs(a - b).mean() for a, b in pairs]) / 127.5
    for kind in ("untouched", "translated"):
        assert result["scores"]["MAE"][kind] == pytest.approx(expected, rel=1e-6)
    assert json.loads((run / "test" / "scores.json").read_text())["BtoA"]["images"] == 3


def test_numbered_pictures_are_no_counterparts_unless_that_is_said(run: Path):
    unsaid, said = translate_split(run), translate_split(run, paired=True)
    assert "MAE" not in unsaid["AtoB"]["scores"] and "--paired yes" in unsaid["AtoB"]["truths"]
    assert {"MAE", "PSNR", "SSIM"} <= set(said["AtoB"]["scores"])
    write_pictures(data_root(run) / "testA", 4)
    with pytest.raises(CounterpartError, match=r"03\.png"):
        translate_split(run, paired=True)


def test_sides_called_a_and_b_are_counterparts(run: Path):
    root = data_root(run)
    for domain in "AB":
        for path in (root / f"test{domain}").iterdir():
            path.rename(path.with_stem(f"{path.stem}_{domain}"))
    assert {"MAE", "PSNR", "SSIM"} <= set(translate_split(run)["AtoB"]["scores"])


def test_cycle_and_identity_errors_of_known_generators(run: Path):
    """A generator that adds 0.5 up to the limit, and the identity for a way back."""
    make_brighter(run / "AtoB.safetensors")
    scores = translate_split(run, metrics=["fid"], extractor=from_callable("mean", lambda x: x.float().mean((2, 3))))
    a, b = (pixels_of(data_root(run) / f"test{domain}") for domain in "AB")
    brighter = [np.mean([np.abs(np.minimum(image + 0.5, 1) - image).mean() for image in side]) for side in (a, b)]
    assert scores["AtoB"]["scores"]["cycle_error"] == {"untouched": 0, "translated": pytest.approx(brighter[0], 1e-5)}
    assert scores["AtoB"]["scores"]["identity_error"]["translated"] == pytest.approx(brighter[1], 1e-5)
    assert scores["BtoA"]["scores"]["identity_error"]["translated"] == pytest.approx(0, abs=1e-6)
    card = json.loads((run / "test" / "AtoB.card.json").read_text())
    assert card["numbers"]["cycle_error"] == scores["AtoB"]["scores"]["cycle_error"]["translated"]


def test_outside_its_mask_a_test_picture_stays_in_pictures_and_errors(run: Path, tmp_path: Path):
    make_brighter(run / "AtoB.safetensors")
    root, left = data_root(run), np.zeros((40, 40), np.uint8)
    left[:, :10] = 255
    (tmp_path / "masks").mkdir()
    for path in find_images(root / "testA"):
        height, width = np.asarray(Image.open(path)).shape[:2]
        Image.fromarray(left[:height, :width]).save(tmp_path / "masks" / f"{path.stem}.png")
    text = (run / "config.yaml").read_text()
    whole = translate_split(run)
    config = yaml.safe_load(text)
    config["data"]["A"]["test_mask"] = str(tmp_path / "masks")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    scores = translate_split(run)
    before, after = pixels_of(root / "testA"), pixels_of(run / "test" / "AtoB")
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old[:, 10:], new[:, 10:])
        assert np.allclose(new[:, :10], np.minimum(old[:, :10] + 0.5, 1), atol=1 / 127)
    change = np.mean([np.abs(new - old).mean() for old, new in zip(before, after, strict=True)])
    assert scores["AtoB"]["scores"]["cycle_error"]["translated"] == pytest.approx(change, abs=2e-3)
    assert change < 0.5 * whole["AtoB"]["scores"]["cycle_error"]["translated"]
    assert scores["BtoA"] == whole["BtoA"]  # its pictures have no masks


def test_of_pictures_side_by_side_a_mask_of_one_half_is_not_the_others(run: Path, tmp_path: Path):
    make_brighter(run / "AtoB.safetensors")
    masks, root = {"test_mask": str(tmp_path / "masks")}, data_root(run)
    for folder, size in ((root / "test", (80, 40)), (tmp_path / "masks", (40, 40))):  # masks of zeros: nothing changes
        folder.mkdir()
        for i in range(2):
            Image.new("RGB", size).save(folder / f"{i}.png")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"pairing": "paired", "side_by_side": True, "B": masks}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    there = translate_split(run)["AtoB"]["scores"]
    assert (there["MAE"]["translated"] > 0.2, there["identity_error"]["translated"]) == (True, 0)
    config["data"] |= {"A": masks, "B": {}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    there = translate_split(run)["AtoB"]["scores"]
    assert (there["MAE"]["translated"], there["identity_error"]["translated"] > 0.4) == (0, True)


def test_the_fid_command_adds_both_errors_of_a_run(run: Path, published_weights, tmp_path: Path, capsys):
    make_brighter(run / "AtoB.safetensors")
    expected = translate_split(run, direction="AtoB")["AtoB"]["scores"]
    reference, card = str(data_root(run) / "testB"), tmp_path / "card.json"
    options = ["--dims", "64", "--num-workers", "0", "--cycle", "--card", str(card)]
    assert commands.run("cyclegan fid", fid.main, [str(run), reference, *options]) == 0
    numbers = json.loads(card.read_text())["numbers"]
    printed = capsys.readouterr().out.splitlines()
    for name in ("cycle_error", "identity_error"):
        assert numbers[name] == pytest.approx(expected[name]["translated"], rel=1e-6)
        assert f"{name}: {numbers[name]}" in printed
    (run / "BtoA.safetensors").unlink()
    assert commands.run("cyclegan fid", fid.main, [str(run), reference, *options]) == 1
    assert "this run has no way back" in capsys.readouterr().err
    assert commands.run("cyclegan fid", fid.main, [reference, reference, *options]) == 1
    assert "--cycle: " in capsys.readouterr().err


def test_without_a_way_back_there_is_no_cycle(run: Path):
    (run / "BtoA.safetensors").unlink()
    scores = translate_split(run)["AtoB"]["scores"]
    assert "identity_error" in scores and "cycle_error" not in scores


def test_halves_of_one_picture_score_as_two_folders_do(run: Path):
    root = data_root(run)
    plain = Extractor("plain", lambda x: x.mean((2, 3)), lambda x: x / 255)
    apart = translate_split(run, metrics=["fid"], extractor=plain, paired=True)
    config = load_config(run / "config.yaml", ["data.pairing=paired", "data.side_by_side=true"])
    (run / "config.yaml").write_text(config.to_yaml())
    (root / "test").mkdir()
    for i in range(3):
        sides = [np.asarray(Image.open(root / domain / f"{i:02d}.png")) for domain in ("testA", "testB")]
        Image.fromarray(np.concatenate(sides, 1)).save(root / "test" / f"{i:02d}.png")
    together = translate_split(run, metrics=["fid"], extractor=plain)
    for direction in ("AtoB", "BtoA"):
        assert {"MAE", "PSNR", "SSIM"} < set(together[direction]["scores"])
        assert together[direction]["scores"] == apart[direction]["scores"]
        assert Image.open(run / "test" / direction / "01.png").size == (40, 40)


def test_a_generator_that_gives_no_numbers_is_told(run: Path, monkeypatch):
    monkeypatch.setattr(split, "translation", lambda *_: lambda image: image * float("nan"))
    with pytest.raises(EvaluationError, match=r"AtoB gives NaN for .*00\.png"):
        translate_split(run)


def test_one_domain_is_enough(run: Path):
    root = data_root(run)
    (root / "testB").rename(root / "away")
    assert list(translate_split(run)) == ["AtoB"]
    with pytest.raises(SplitError, match=r"no test pictures for BtoA \(found A in .*as data\.B\.test in"):
        translate_split(run, direction="BtoA")
    (run / "AtoB.safetensors").unlink()
    with pytest.raises(SplitError, match=r"no generator for AtoB \(AtoB\.safetensors\)"):
        translate_split(run, direction="AtoB")


def test_the_gallery_needs_nothing_but_itself(run: Path):
    for domain in "AB":
        write_pictures(data_root(run) / f"test{domain}" / "<b>&", 1)
    translate_split(run, paired=True)
    page = (run / "test" / "index.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|http""", page)
    assert page.count("<img ") == 2 * 4 * 4  # input, output, back, truth
    assert "&lt;b&gt;&amp;/00.png" in page and "<b>" not in page


def test_what_is_no_run_is_said(run: Path, tmp_path: Path):
    with pytest.raises(SplitError, match="no run's folder"):
        translate_split(tmp_path)
    (run / "AtoB.safetensors").write_bytes(b"no weights")
    with pytest.raises(GeneratorFileError, match=r"AtoB\.safetensors"):
        translate_split(run)


def test_paired_data_with_one_test_domain_is_translated(run: Path):
    config = load_config(run / "config.yaml", ["data.pairing=paired"])
    (run / "config.yaml").write_text(config.to_yaml())
    root = data_root(run)
    (root / "testB").rename(root / "away")
    assert list(translate_split(run)) == ["AtoB"]


def test_a_cycle_needs_no_counterparts(run: Path, published_weights, capsys):
    config = load_config(run / "config.yaml", ["data.pairing=paired"])
    (run / "config.yaml").write_text(config.to_yaml())
    translate_split(run, direction="AtoB", paired=False)
    (data_root(run) / "testB" / "00.png").rename(data_root(run) / "testB" / "alone.png")
    arguments = [str(run), str(data_root(run) / "testB"), "--dims", "64", "--num-workers", "0", "--cycle"]
    assert commands.run("cyclegan fid", fid.main, arguments) == 0, capsys.readouterr().err


def test_content_is_compared_under_the_names_that_translations_get(run: Path):
    source = data_root(run) / "testA"
    Image.new("RGB", (40, 40)).save(source / "00.jpg")
    translate_split(run, direction="AtoB")
    pairs = pairs_by_name(run / "test" / "AtoB", source)
    assert {(output.name, partner.name) for output, partner in pairs} == {
        ("00.jpg.png", "00.jpg"),
        ("00.png.png", "00.png"),
        ("01.png", "01.png"),
        ("02.png", "02.png"),
    }


def test_distances_say_what_they_are_of(run: Path, capsys):
    arguments = ["--run", str(run), "--metrics", "kid", "--extractor", str(colours(run.parent)), "--device", "cpu"]
    assert commands.run("test.py", test.main, arguments) == 0
    printed, page = capsys.readouterr().out, (run / "test" / "index.html").read_text()
    about = json.loads((run / "test" / "scores.json").read_text())["AtoB"]["distances"]
    assert (about["extractor"], about["protocol"], about["n_real"], about["n_fake"]) == ("colours", "own", 3, 3)
    assert any("below 2048" in warning for warning in about["warnings"])
    for text in (printed, page):
        assert "extractor colours, protocol own" in text and "n_real = 3" in text and "below 2048" in text


def colours(folder: Path) -> Path:
    class Means(torch.nn.Module):
        def forward(self, x):
            return x.float().mean((2, 3))

    torch.jit.script(Means()).save(folder / "colours.pt")
    return folder / "colours.pt"


def test_both_commands_cards_name_the_same_pictures(run: Path, tmp_path: Path):
    for domain in "AB":
        write_pictures(data_root(run) / f"test{domain}" / "deeper", 2)
    plain = from_callable("mean", lambda x: x.float().mean((2, 3)))
    translate_split(run, direction="AtoB", metrics=["fid"], extractor=plain)
    card = json.loads((run / "test" / "AtoB.card.json").read_text())
    other = evaluate(run / "test" / "AtoB", data_root(run) / "testB", plain, ["fid"]).card
    for side in ("real", "fake"):
        assert card[side]["fingerprint"] == other[side]["fingerprint"]


def test_the_halves_of_one_picture_are_told_apart(run: Path):
    data = load_config(run / "config.yaml", ["data.pairing=paired", "data.side_by_side=true"]).data
    files, folder = find_images(data.root / "testA"), data.root / "testA"
    assert fingerprint(pictures_of(data, "A", files, folder)) != fingerprint(pictures_of(data, "B", files, folder))


def test_wrong_metrics_and_batches_are_said_before_the_translation(run: Path, capsys):
    arguments = ["--run", str(run), "--device", "cpu"]
    extra = ["--metrics", "fid,speed", "--extractor", str(colours(run.parent))]
    assert commands.run("test.py", test.main, [*arguments, *extra]) == 1
    assert "no metric speed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        test.main([*arguments, "--batch-size", "0"])
    assert not (run / "test").exists()


def test_what_is_said_about_metrics_needs_some(run: Path, capsys):
    arguments = ["--run", str(run), "--device", "cpu", "--direction", "AtoB"]
    assert commands.run("test.py", test.main, [*arguments, "--extractor", str(colours(run.parent))]) == 1
    assert "--extractor: for --metrics only" in capsys.readouterr().err
    extra = ["--metrics", "fid, kid", "--extractor", str(colours(run.parent))]
    of_inception = ["--protocol", "clean", "--inception-weights", "nowhere.pth"]
    assert commands.run("test.py", test.main, [*arguments, *extra, *of_inception]) == 1
    assert "--protocol, --inception-weights: for --extractor inception only" in capsys.readouterr().err
    assert commands.run("test.py", test.main, [*arguments, *extra]) == 0
    assert "kid_colours" in capsys.readouterr().out


def test_what_distances_cannot_be_had_costs_nothing_else(run: Path, capsys):
    arguments = ["--run", str(run), "--metrics", "kid,density_coverage", "--extractor", str(colours(run.parent))]
    assert commands.run("test.py", test.main, [*arguments, "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "AtoB: kid, density_coverage need at least 6 images on each side, got 3" in said and "the gallery" in said
    assert json.loads((run / "test" / "scores.json").read_text())["BtoA"]["scores"]["cycle_error"]
    assert (run / "test" / "index.html").exists()


def test_distances_to_a_domain_without_pictures_are_told_from_none(run: Path, capsys):
    (data_root(run) / "testB").rename(data_root(run) / "away")
    arguments = ["--run", str(run), "--metrics", "kid", "--extractor", str(colours(run.parent))]
    assert commands.run("test.py", test.main, [*arguments, "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert f"AtoB: no pictures of B to take kid to; name their folder as data.B.test in {run}/config.yaml" in said
    assert find(run, "AtoB") == ["00.png", "01.png", "02.png"] and (run / "test" / "index.html").exists()


def test_truths_of_another_size_are_told(run: Path):
    Image.new("RGB", (64, 64)).save(data_root(run) / "testB" / "00.png")
    results = translate_split(run, direction="AtoB", paired=True)
    assert "Of these 3, 1 have another size: left out." in results["AtoB"]["truths"]
    assert "1 have another size" in (run / "test" / "index.html").read_text()


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_colours_for_grey_pictures_are_compared_with_the_true_ones(run: Path, direction: str):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["A"]["channels"] = 1
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    channels = {"A": 1, "B": 3}
    for way in ("AtoB", "BtoA"):
        counts = {"in_channels": channels[way[0]], "out_channels": channels[way[-1]]}
        generator = build_generator({"name": "resnet", "width": 2, "blocks": 0, **counts})
        about = {"direction": way, "input": {"channels": channels[way[0]]}, "output": {"channels": channels[way[-1]]}}
        save_generator(run / f"{way}.safetensors", initialize(generator, "normal", 0.0), about)
    shutil.rmtree(data_root(run) / "testB")
    shutil.copytree(data_root(run) / "testA", data_root(run) / "testB")
    result = translate_split(run, direction=direction, paired=True)[direction]
    assert "another size" not in result["truths"] and {"MAE", "PSNR", "SSIM"} <= set(result["scores"])
    files = sorted((data_root(run) / "testA").iterdir())
    grey = [np.asarray(Image.open(path).convert("L"), float)[..., None] / 127.5 - 1 for path in files]
    truth = [np.asarray(Image.open(path), float) / 127.5 - 1 for path in files] if direction == "AtoB" else grey
    untouched = np.mean([np.abs(x - y).mean() for x, y in zip(grey, truth, strict=True)])
    assert result["scores"]["MAE"]["untouched"] == pytest.approx(untouched, abs=0.01)
    translated = np.mean([np.abs(y).mean() for y in truth])  # the generator gives middle grey
    assert result["scores"]["MAE"]["translated"] == pytest.approx(translated, abs=0.01)


def test_translations_of_pictures_that_are_gone_go_too(run: Path):
    translate_split(run, direction="AtoB")
    (data_root(run) / "testA" / "00.png").rename(data_root(run) / "testA" / "new.png")
    (run / "test" / "AtoB" / "mine.png").touch()
    translate_split(run, direction="AtoB")
    assert sorted(path.name for path in (run / "test" / "AtoB").iterdir()) == [
        "01.png",
        "02.png",
        "mine.png",
        "new.png",
    ]


def test_the_other_direction_keeps_its_scores_while_its_pictures_are_there(run: Path, capsys):
    plain = from_callable("mean", lambda x: x.float().mean((2, 3)))
    translate_split(run, direction="AtoB", metrics=["kid"], extractor=plain)
    first = json.loads((run / "test" / "scores.json").read_text())["AtoB"]
    translate_split(run, direction="BtoA")
    known, page = json.loads((run / "test" / "scores.json").read_text()), (run / "test" / "index.html").read_text()
    assert known["AtoB"] == first and known.keys() == {"AtoB", "BtoA"}
    assert "3 pictures of an earlier call" in page and "kid_mean" in page
    assert page.index("<h2>AtoB") < page.index("<h2>BtoA") and page.count("<img ") == 3 * 3
    (run / "test" / "AtoB" / "01.png").unlink()
    translate_split(run, direction="BtoA")
    assert json.loads((run / "test" / "scores.json").read_text()).keys() == {"BtoA"}
    assert "loses the scores of AtoB: not all of its pictures are there" in capsys.readouterr().out
    (run / "test" / "scores.json").write_text('{"AtoB": {"images": 3}, "BtoA": 1}')
    translate_split(run, direction="BtoA")
    assert json.loads((run / "test" / "scores.json").read_text()).keys() == {"BtoA"}
    assert "loses the scores of AtoB: another version wrote them" in capsys.readouterr().out


def test_new_pictures_have_neither_the_card_nor_the_scores_of_old_ones(run: Path, monkeypatch):
    plain = from_callable("mean", lambda x: x.float().mean((2, 3)))
    translate_split(run, metrics=["kid"], extractor=plain)
    monkeypatch.setattr(split, "translation", lambda *_: lambda image: image * float("nan"))
    with pytest.raises(EvaluationError, match="NaN"):  # in the midst of the pictures
        translate_split(run, direction="AtoB")
    assert json.loads((run / "test" / "scores.json").read_text()).keys() == {"BtoA"}
    assert [path.name for path in (run / "test").glob("*.card.json")] == ["BtoA.card.json"]


def test_generators_that_tell_nothing_of_their_run_are_scored(run: Path):
    for direction in ("AtoB", "BtoA"):
        path = run / f"{direction}.safetensors"
        generator = load_generator(path)
        save_generator(path, generator, {name: generator.about[name] for name in ("direction", "input", "output")})
    plain = from_callable("mean", lambda x: x.float().mean((2, 3)))
    translate_split(run, metrics=["kid"], extractor=plain)
    assert json.loads((run / "test" / "AtoB.card.json").read_text())["checkpoint"] == "tiny/AtoB"


def test_equal_pictures_leave_valid_json(run: Path):
    for name in ("00", "01", "02"):
        shutil.copy(data_root(run) / "testA" / f"{name}.png", data_root(run) / "testB" / f"{name}.png")
    plain = from_callable("mean", lambda x: x.float().mean((2, 3)))
    results = translate_split(run, direction="AtoB", paired=True, metrics=["fid"], extractor=plain)
    assert results["AtoB"]["scores"]["PSNR"]["translated"] == float("inf")
    for file in ("scores.json", "AtoB.card.json"):
        json.loads((run / "test" / file).read_text(), parse_constant=pytest.fail)
    assert json.loads((run / "test" / "scores.json").read_text())["AtoB"]["scores"]["PSNR"]["translated"] is None


def test_a_damaged_picture_is_named_before_any_is_translated_or_left_out_as_configured(run: Path, capsys):
    (data_root(run) / "testA" / "01.png").write_bytes(b"no picture")
    assert commands.run("test.py", test.main, ["--run", str(run), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert re.search(r"testA/01\.png.*data\.corrupt=skip in .*config\.yaml", said) and not find(run, "AtoB")
    config = load_config(run / "config.yaml", ["data.corrupt=skip"])
    (run / "config.yaml").write_text(config.to_yaml())
    plain = from_callable("mean", lambda x: x.float().mean((2, 3)))
    results = translate_split(run, metrics=["kid"], extractor=plain, paired=True)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("01.png") == 1
    assert (find(run, "AtoB"), find(run, "BtoA")) == (["00.png", "02.png"], ["00.png", "01.png", "02.png"])
    for way, translated in (("AtoB", 2), ("BtoA", 3)):
        about = results[way]["distances"]
        assert (results[way]["images"], about["n_fake"], about["n_real"]) == (translated, translated, 5 - translated)
    root = data_root(run)
    pairs = [
        [np.asarray(Image.open(root / d / name), float) for d in ("testA", "testB")] for name in ("00.png", "02.png")
    ]
    expected = np.mean([np.abs(a - b).mean() for a, b in pairs]) / 127.5
    assert [results[way]["scores"]["MAE"]["untouched"] for way in results] == [pytest.approx(expected, rel=1e-6)] * 2


def find(run: Path, way: str) -> list[str]:
    return sorted(path.name for path in (run / "test" / way).glob("*.png"))


def test_names_that_are_not_utf8_are_translated_scored_and_shown(run: Path, capfdbinary):
    for domain in "AB":
        for path in find_images(data_root(run) / f"test{domain}"):
            path.rename(os.fsdecode(os.fsencode(path.parent) + b"/b\xe4r-" + os.fsencode(path.name)))
    shutil.copy(find_images(data_root(run) / "testA")[0], data_root(run) / "testA" / os.fsdecode(b"b\xe4r-00.jpg"))
    arguments = ["--run", str(run), "--metrics", "kid", "--extractor", str(colours(run.parent)), "--device", "cpu"]
    assert commands.run("test.py", test.main, arguments) == 0, capfdbinary.readouterr().err
    assert rb"b\udce4r-00.png have one name" in capfdbinary.readouterr().out
    assert "<figcaption>b?r-01.png" in (run / "test" / "index.html").read_text(encoding="utf-8")
    assert json.loads((run / "test" / "AtoB.card.json").read_text())["fake"]["n"] == 4
