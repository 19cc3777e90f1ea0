"""The two factors of ArtFID: the content's by LPIPS, the style's by a Fréchet distance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import alexnet

from cyclegan.commands import run
from cyclegan.commands.fid import main
from cyclegan.evaluation.evaluator import evaluate
from cyclegan.evaluation.extractors import from_callable
from cyclegan.evaluation.pairs import art_product, pairs_by_name, score_content


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Results of grey 50 and 150 for contents of 50 and 50, styles of 100 and 140."""
    for name, values in {"results": (50, 150), "styles": (100, 140), "contents": (50, 50)}.items():
        (tmp_path / name).mkdir()
        for i, value in enumerate(values):
            Image.new("RGB", (32, 32), (value,) * 3).save(tmp_path / name / f"{i}.png")
    return [str(tmp_path / name) for name in ("results", "styles", "contents")]


def test_product_is_that_of_a_hand(folders: list[str]):
    """Brightness is the feature and half the mean difference the stub for LPIPS."""
    results, styles, contents = folders
    brightness = from_callable(
        "brightness", lambda x: x.mean((1, 2, 3))[:, None].repeat(1, 2) * torch.tensor([1.0, 0]), lambda x: x.float()
    )
    numbers = evaluate(results, styles, brightness, ["fid"]).numbers
    # means 100 and 120; deviations of two values (n - 1) are 100 / sqrt 2 and 40 / sqrt 2: 20² + (60² / 2)
    assert numbers["fd_brightness"] == pytest.approx(400 + 1800)
    numbers |= score_content(pairs_by_name(results, contents), lambda x, y: (x - y).abs().mean((1, 2, 3)) / 2)
    lpips = (0 + 100 / 255) / 2
    assert numbers["content_lpips"] == pytest.approx(lpips, rel=1e-5)
    assert art_product(numbers, "fd_brightness") == {"lpips_x_fd_brightness": pytest.approx((1 + lpips) * 2201)}
    assert art_product(numbers, "fid") == {}


def test_command_gives_both_factors_and_their_product(folders: list[str], tmp_path: Path, capsys):
    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), tmp_path / "alexnet.pth")
    results, styles, contents = folders
    options = ["--dims", "64", "--num-workers", "0", "--allow-random-weights"]
    command = [results, styles, "--source", contents, "--lpips-weights", str(tmp_path / "alexnet.pth"), *options]
    assert run("fid", main, [*command, "--card", str(tmp_path / "card.json")]) == 0
    numbers = json.loads((tmp_path / "card.json").read_text())["numbers"]
    product = (1 + numbers["content_lpips"]) * (1 + numbers["fd_inception-random"])
    assert numbers["content_lpips"] > 0
    assert numbers["lpips_x_fd_inception-random"] == pytest.approx(product)
    assert "lpips_x_fd_inception-random: " in capsys.readouterr().out


def test_weights_without_anything_to_compare_with_are_refused(folders: list[str], tmp_path: Path, capsys):
    torch.save({}, tmp_path / "alexnet.pth")
    assert run("fid", main, [*folders[:2], "--lpips-weights", str(tmp_path / "alexnet.pth")]) == 1
    assert capsys.readouterr().err == (
        "fid: --lpips-weights: LPIPS compares GENERATED with --source or --truth, name one of them\n"
    )
    assert run("fid", main, [*folders[:2], "--source", folders[2], "--lpips-weights", "nowhere.pth"]) == 1
    assert "no file nowhere.pth" in capsys.readouterr().err
