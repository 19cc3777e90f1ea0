import json
import os
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.commands import run
from cyclegan.commands.fid import main
from cyclegan.evaluation.evaluator import Settings, evaluate
from cyclegan.evaluation.extractors import from_callable, inception
from cyclegan.evaluation.published import PUBLISHED
from cyclegan.evaluation.statistics import EvaluationError

FAST = ["--dims", "64", "--num-workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def folders(make_folder):
    return [str(make_folder(5, seed=0)), str(make_folder(6, seed=1))]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.delenv("CYCLEGAN_INCEPTION_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def failure(capsys, arguments):
    """The one line of a failing command."""
    assert run("cyclegan fid", main, arguments) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("cyclegan fid: ")
    assert output.err.count("\n") == 1, output.err
    return output.err


def test_the_last_line_is_pytorch_fids(folders, published_weights, capsys):
    assert main([*folders, *FAST]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    expected = evaluate(*folders, inception(layer=64)).numbers["fid"]
    assert re.fullmatch(r"FID:  \d+\.\d+", last)
    assert float(last.removeprefix("FID:")) == pytest.approx(expected, rel=1e-6)


def test_nothing_that_it_computes_rounds_to_tf32(folders, published_weights, monkeypatch):
    """Features do not anyway; but neither generators, for --cycle, nor LPIPS."""
    seen, conv = [], torch.backends.cudnn.conv
    monkeypatch.setattr("cyclegan.commands.fid._check", lambda *_: seen.append(conv.fp32_precision))
    assert main([*folders, *FAST]) == 0
    assert seen == ["ieee"] and conv.fp32_precision != "ieee"


def test_protocol_counts_and_weights_stand_beside_the_number(folders, published_weights, capsys):
    assert main([*folders, *FAST, "--protocol", "clean"]) == 0
    output = capsys.readouterr()
    assert "protocol clean, layer 64, weights " in output.out
    assert "n_real = 6, n_fake = 5" in output.out
    assert "warning: 6 real and 5 fake images: below 2048" in output.err


def test_random_weights_never_print_fid(folders, capsys):
    assert main([*folders, *FAST, "--allow-random-weights"]) == 0
    assert "FID:" not in (out := capsys.readouterr().out) and "fd_inception-random:  " in out


def test_without_weights_one_line_says_what_to_fetch(folders, offline, tmp_path, capsys):
    line = failure(capsys, [*folders, *FAST])
    for part in ("pt_inception-2015-12-05-6726825d.pth", "https://", "6726825d0af5f729", str(tmp_path / "torch")):
        assert part in line


def test_saved_statistics_give_the_folders_number(folders, published_weights, tmp_path, capsys):
    stats = str(tmp_path / "reference.npz")
    assert main([folders[1], stats, "--save-stats", *FAST]) == 0
    assert main([*folders, *FAST, "--metrics", "fid"]) == 0
    of_folders = capsys.readouterr().out.splitlines()[-1]
    assert main([folders[0], stats, *FAST]) == 0
    of_file = capsys.readouterr().out.splitlines()[-1]
    assert float(of_file[4:]) == pytest.approx(float(of_folders[4:]), rel=1e-7)


def test_statistics_of_another_protocol_are_refused_unless_mixed(folders, published_weights, tmp_path, capsys):
    stats = str(tmp_path / "clean.npz")
    assert main([folders[1], stats, "--save-stats", "--protocol", "clean", *FAST]) == 0
    capsys.readouterr()
    assert "clean.npz was made with protocol clean" in failure(capsys, [folders[0], stats, *FAST])
    assert main([folders[0], stats, "--mix-protocols", *FAST]) == 0
    assert "warning: " in capsys.readouterr().err


def test_the_card_is_written(folders, published_weights, tmp_path):
    assert main([*folders, *FAST, "--card", str(tmp_path / "card.json"), "--source", folders[0]]) == 0
    numbers = json.loads((tmp_path / "card.json").read_text())["numbers"]
    assert {"fid", "kid", "luminance_correlation", "edge_agreement", "change"} <= numbers.keys()
    assert numbers["luminance_correlation"] == pytest.approx(1)


def test_intervals_are_printed_above_the_last_line(folders, published_weights, capsys):
    assert main([*folders, *FAST, "--bootstrap", "20", "--confidence", "0.9"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    fid = float(last.removeprefix("FID:"))
    low, high = map(
        float, re.search(r"^0\.9 interval of FID: (\S+) to (\S+) \(20 draws", "\n".join(lines), re.M).groups()
    )
    assert low < fid < high
    assert any(line.startswith("0.9 interval of kid: ") for line in lines)


def test_sub_folders_are_scored_one_by_one(make_folder, published_weights, tmp_path, capsys):
    for side in ("fake", "real"):
        (tmp_path / side).mkdir()
        for seed, name in enumerate(("cats", "dogs")):
            make_folder(3 + seed, seed=seed + 10 * (side == "real"), folder=tmp_path / side / name)
        (tmp_path / side / ".hidden").mkdir()
    make_folder(2, folder=tmp_path / "fake" / "only-here")
    assert main([str(tmp_path / "fake"), str(tmp_path / "real"), "--per-folder", *FAST]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^cats: fid \S+, kid \S+ \(n_real = 3, n_fake = 3\)$", output, re.MULTILINE)
    assert re.search(r"^dogs: .*n_real = 4, n_fake = 4", output, re.MULTILINE)
    assert re.search(r"^mean of 2 folders: fid", output, re.MULTILINE) and "only-here" not in output


def test_a_run_folder_stands_for_its_translations(folders, make_folder, published_weights, tmp_path, capsys):
    (tmp_path / "config.yaml").touch()
    assert "is a run without" in failure(capsys, [str(tmp_path), folders[1], *FAST])
    (tmp_path / "test").mkdir()
    make_folder(5, seed=0, folder=tmp_path / "test" / "AtoB")
    assert main([str(tmp_path), folders[1], *FAST]) == 0
    of_run = capsys.readouterr().out.splitlines()[-1]
    assert main([*folders, *FAST]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == of_run


def test_translations_older_than_their_generator_are_told(folders, make_folder, published_weights, tmp_path, capsys):
    (tmp_path / "config.yaml").touch()
    (tmp_path / "test").mkdir()
    make_folder(5, seed=0, folder=tmp_path / "test" / "AtoB")
    for moved, told in ((-60, False), (60, True)):
        (tmp_path / "AtoB.safetensors").touch()
        os.utime(tmp_path / "AtoB.safetensors", (time.time() + moved,) * 2)
        assert main([str(tmp_path), folders[1], *FAST]) == 0
        assert (f"is newer than {tmp_path / 'test' / 'AtoB'}: test.py --run" in capsys.readouterr().err) == told


def test_published_protocols_want_their_network_and_counts(folders, published_weights, tmp_path, capsys, monkeypatch):
    arguments = [*folders, "--published", "horse2zebra", "--num-workers", "0", "--cache", str(tmp_path)]
    assert "inception-2015-12-05 at layer 64 gives none" in failure(capsys, [*arguments, *FAST])
    line = failure(capsys, arguments)
    assert "140 real (testB) and 120 translated test images, got 6 and 5" in line
    monkeypatch.setitem(PUBLISHED, "horse2zebra", replace(PUBLISHED["horse2zebra"], n_real=6, n_fake=5))
    assert main([*arguments, "--card", str(tmp_path / "card.json")]) == 0
    output = capsys.readouterr().out
    assert re.search(r"CycleGAN +pytorch-fid +77\.20 +clean +75\.17", output)
    assert re.search(r"yours +pytorch-fid +\d+\.\d\d +clean +\d+\.\d\d", output)
    assert json.loads((tmp_path / "card.clean.json").read_text())["protocol"] == "clean"


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_folder_is_named(folders, published_weights, tmp_path, capsys, missing):
    paths = [*folders]
    paths[missing] = str(tmp_path / "nowhere")
    assert "nowhere" in failure(capsys, [*paths, *FAST])


def test_unusable_inputs_fail_in_one_line(folders, published_weights, tmp_path, capsys):
    empty, single, damaged, npz = (tmp_path / name for name in ("empty", "single", "damaged", "x.npz"))
    for folder in (empty, single, damaged):
        folder.mkdir()
    Image.new("RGB", (8, 8)).save(single / "a.png")
    Image.new("RGB", (8, 8)).save(damaged / "a.png")
    (damaged / "b.png").write_text("no picture")
    np.savez(npz, other=np.ones(3))
    assert "no images in" in failure(capsys, [str(empty), folders[1], *FAST])
    assert "at least 2 images" in failure(capsys, [str(single), folders[1], *FAST])
    assert "b.png" in failure(capsys, [str(damaged), folders[1], *FAST])
    assert "x.npz has no mu and sigma" in failure(capsys, [folders[0], str(npz), *FAST])
    assert "no metric fud" in failure(capsys, [*folders, *FAST, "--metrics", "fud"])
    assert "no weights file nowhere.pth" in failure(capsys, [*folders, *FAST, "--inception-weights", "nowhere.pth"])
    assert "no extractor 'dino'" in failure(capsys, [*folders, *FAST[2:], "--extractor", "dino"])
    assert "bootstrap takes 0 or at least 2 draws" in failure(capsys, [*folders, *FAST, "--bootstrap", "1"])
    draws = ["--bootstrap", "9", "--confidence", "95"]
    assert "confidence lies between 0 and 1" in failure(capsys, [*folders, *FAST, *draws])
    assert "sofa" in failure(capsys, [*folders, *FAST[:-1], "sofa"])


def test_an_extractor_may_be_called_low(folders, tmp_path, capsys):
    class Means(torch.nn.Module):
        def forward(self, x):
            return x.float().mean((2, 3))

    torch.jit.script(Means()).save(tmp_path / "a_low.pt")
    arguments = [*folders, *FAST[2:], "--extractor", str(tmp_path / "a_low.pt")]
    assert main(arguments) == 0
    assert "interval" not in capsys.readouterr().out
    assert main([*arguments, "--bootstrap", "20"]) == 0
    assert capsys.readouterr().out.count("0.95 interval of ") == 2


def test_few_pictures_are_warned_of_without_fid_too(folders, published_weights, capsys):
    assert main([*folders, *FAST, "--metrics", "kid"]) == 0
    assert "6 real and 5 fake images: below 2048" in capsys.readouterr().err


def test_what_is_wrong_is_said_before_anything_is_computed(
    folders, make_folder, published_weights, tmp_path, capsys, monkeypatch
):
    def refuse(*_, **__):
        raise AssertionError("features were computed")

    monkeypatch.setattr("cyclegan.evaluation.evaluator.collect", refuse)
    for arguments, message in (
        (["--cycle"], "--cycle: "),
        (["--sifid"], "by --truth"),
        (["--lpips-weights", str(tmp_path / "none.pth")], "--lpips-weights: no file"),
        (["--source", str(tmp_path)], "no images in"),
        (["--metrics", "fid,speed"], "no metric speed"),
        (["--with-features"], "--with-features does nothing without --save-stats"),
        (["--style", str(tmp_path)], "--style does nothing without --backbone"),
        (["--save-stats", "--metrics", "fid", "--card", "x.json"], "--save-stats goes without --metrics, --card"),
        (["--published", "horse2zebra", "--per-folder"], "--published goes without --per-folder"),
        (["--allow-random-weights", "--inception-weights", "x"], "random-weights goes without --inception-weights"),
        (["--published", "horse2zebra", "--protocol", "clean"], "--published goes without --protocol"),
        (["--extractor", "effnet-lite0"], "--dims: for --extractor inception only"),
        (["--extractor", "effnet-lite0", "--dims", "2048", "--allow-random-weights"], "--allow-random-weights: for"),
        (["--extractor", "effnet-lite0", "--inception-weights", "x"], "--dims, --inception-weights: for"),
        (["--sifid", "--extractor", "effnet-lite0", "--dims", "2048", "--allow-random-weights"], "by --truth"),
        (["--direction", "BtoA"], "neither GENERATED nor REFERENCE is a run"),
        (["--card", str(tmp_path / "real" / "0.png")], "0.png: a card is JSON, so name a file that ends in .json"),
        (["--card", str(tmp_path / "folder.json")], "folder.json is a folder: name a file"),
        (["--card", str(tmp_path / "file" / "card.json")], "file"),
    ):
        (tmp_path / "file").touch()
        (tmp_path / "folder.json").mkdir(exist_ok=True)
        assert message in failure(capsys, [*folders, *FAST, *arguments])
    target = str(tmp_path / "file" / "a.npz")
    assert "file" in failure(capsys, [folders[0], target, *FAST, "--save-stats"])
    (tmp_path / "folder.npz").mkdir()
    target = str(tmp_path / "folder")
    assert "folder.npz is a folder" in failure(capsys, [folders[0], target, *FAST, "--save-stats"])
    (tmp_path / "known.npz").touch()
    given = [str(tmp_path / "known.npz"), str(tmp_path / "copy"), *FAST, "--save-stats", "--with-features"]
    assert "known.npz holds statistics already" in failure(capsys, given)
    small = str(make_folder(5, size=(40, 30)))
    given = [small, folders[1], *FAST, "--source", small, "--backbone", "squeezenet", "--backbone-weights", "random"]
    assert "000.png: content and style loss need sides of 32 pixels, not 40x30" in failure(capsys, given)


def test_draws_that_outlast_the_other_ranks_patience_are_refused(folders, monkeypatch):
    extractor = from_callable("mean", lambda x: x.float().mean((2, 3)))
    chosen = Settings(bootstrap=20)
    monkeypatch.setattr("cyclegan.evaluation.evaluator.DRAWN_TOGETHER", 20 * 6**2 - 1)
    evaluate(*folders, extractor, ["fid"], chosen)
    monkeypatch.setattr("cyclegan.evaluation.evaluator.rank_and_world", lambda: (0, 2))
    with pytest.raises(EvaluationError, match="single process"):
        evaluate(*folders, extractor, ["fid"], chosen)
