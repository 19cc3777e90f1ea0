"""Content and style loss of files, against their equations, and from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from cyclegan.commands import run
from cyclegan.commands.fid import main
from cyclegan.evaluation.painting import PaintingLosses
from cyclegan.evaluation.pairs import pairs_by_name, score_painting
from cyclegan.evaluation.statistics import EvaluationError

pytestmark = pytest.mark.filterwarnings("ignore:.* has random weights")


@pytest.fixture
def losses() -> PaintingLosses:
    torch.manual_seed(0)
    return PaintingLosses("squeezenet", "random")


def pictures(folder: Path) -> list[Tensor]:
    return [pil_to_tensor(Image.open(path))[None].float() / 127.5 - 1 for path in sorted(folder.iterdir())]


def products(features: list[Tensor]) -> Tensor:
    """(C, C): the mean of x x^T over the places of all pictures."""
    places = torch.cat([x[0].flatten(1) for x in features], 1)
    return torch.einsum("ci,di->cd", places, places) / places.shape[1]


def test_scores_are_their_equations(losses: PaintingLosses, make_folder):
    outputs, contents, styles = (make_folder(2, seed=seed) for seed in (0, 1, 2))
    found = score_painting(pairs_by_name(outputs, contents), sorted(styles.iterdir()), losses)
    features = {
        side: [losses.backbone(x) for x in pictures(folder)]
        for side, folder in {"made": outputs, "content": contents, "style": styles}.items()
    }
    kept, styled = [], []
    for made, content in zip(features["made"], features["content"], strict=True):
        kept.append((made["fire5"] - content["fire5"]).square().sum() / content["fire5"].square().sum())
        for layer in ("relu1", "fire2", "fire4", "fire6", "fire8"):
            one, other = products([made[layer]]), products([style[layer] for style in features["style"]])
            styled.append((one - other).square().sum() / other.square().sum())
    assert found["content_loss_squeezenet-random"] == pytest.approx(torch.stack(kept).mean().item(), rel=1e-4)
    assert found["style_loss_squeezenet-random"] == pytest.approx(torch.stack(styled).mean().item(), rel=1e-4)


def test_a_copy_of_the_content_and_one_of_the_style_score_nothing(losses: PaintingLosses, make_folder):
    contents, styles = make_folder(1), make_folder(1, seed=1)
    copied = score_painting(pairs_by_name(contents, contents), sorted(styles.iterdir()), losses)
    painted = score_painting(pairs_by_name(styles, contents), sorted(styles.iterdir()), losses)
    assert copied["content_loss_squeezenet-random"] == 0 < painted["content_loss_squeezenet-random"]
    assert painted["style_loss_squeezenet-random"] == 0 < copied["style_loss_squeezenet-random"]


def test_styles_are_seen_at_the_outputs_size(losses: PaintingLosses, make_folder, tmp_path: Path):
    outputs = make_folder(1)
    Image.open(outputs / "000.png").resize((320, 240), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
    found = score_painting(pairs_by_name(outputs, outputs), [tmp_path / "large.png"], losses)
    other = score_painting(pairs_by_name(outputs, outputs), sorted(make_folder(1, seed=1).iterdir()), losses)
    assert found["style_loss_squeezenet-random"] < other["style_loss_squeezenet-random"] / 100


def test_too_small_pictures_are_one_line(losses: PaintingLosses, make_folder):
    outputs = make_folder(1, size=(40, 30))
    with pytest.raises(EvaluationError, match="need sides of 32 pixels"):
        score_painting(pairs_by_name(outputs, outputs), sorted(outputs.iterdir()), losses)


FAST = ["--dims", "64", "--num-workers", "0", "--device", "cpu"]
RANDOM = ["--backbone", "squeezenet", "--backbone-weights", "random"]


def test_the_command_prints_them_of_the_reference_or_of_a_style(make_folder, published_weights, capsys):
    outputs, contents, styles = (make_folder(2, seed=seed) for seed in (0, 1, 2))
    (styles / "001.png").write_bytes((styles / "000.png").read_bytes())  # twice the same is the same style
    told = []
    for given in ([styles], [contents, "--style", styles / "000.png"]):
        torch.manual_seed(0)
        arguments = [outputs, *given, "--source", contents, *RANDOM, *FAST, "--metrics", "kid"]
        assert run("cyclegan fid", main, [str(argument) for argument in arguments]) == 0
        told.append(dict(line.split(": ") for line in capsys.readouterr().out.splitlines() if "_loss_" in line))
    assert list(told[0]) == ["content_loss_squeezenet-random", "style_loss_squeezenet-random"]
    for name, value in told[0].items():
        assert float(value) == pytest.approx(float(told[1][name])) and float(value) > 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "--backbone compares GENERATED with its inputs: name their folder by --source"),
        (["--source", "FOLDER", "--style", "gone.png"], "no folder gone.png"),
        (["--source", "FOLDER", "--backbone-weights", "gone.pth"], "no weights file gone.pth"),
    ],
)
def test_what_cannot_be_compared_is_one_line(make_folder, published_weights, more: list[str], words: str, capsys):
    folder = str(make_folder(2))
    given = [folder, folder, *RANDOM, *FAST, *(folder if word == "FOLDER" else word for word in more)]
    assert run("cyclegan fid", main, given) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1
