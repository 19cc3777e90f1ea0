"""`cyclegan styles`: walks between styles and draws around one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from cyclegan.commands import run, styles
from cyclegan.inference.checkpoints.generator_file import GeneratorFileError, load_generator, save_generator
from cyclegan.inference.style_grid import draws, read_contents, walk
from cyclegan.inference.translate import translate_tensor
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from tests.conftest import write_pictures

ABOUT = {"direction": "AtoB", "input": {"channels": 3, "background": "white"}, "output": {"channels": 3}, "run": "x"}
SMALL = {
    "adain": {"name": "adain", "layer": "relu2_1"},
    "variational": {"name": "variational", "layer": "relu2_1", "size": 8, "width": 4},
    "resnet": {"name": "resnet", "width": 4, "blocks": 1},
}


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return initialize(build_generator(SMALL[name]), "kaiming").eval()


def picture(seed: int, side: int = 24) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("name", ["adain", "variational"])
@torch.no_grad()
def test_a_walk_passes_its_styles_and_what_translate_makes_of_their_mixtures(name: str):
    generator, contents = build(name), torch.cat([picture(0, 21), picture(1, 21)])
    given = {"a": picture(2), "b": 0.3 * picture(3), "c": picture(4)}
    columns = walk(generator, contents, given, 3)
    assert [caption for caption, _ in columns] == ["a", "0.50", "b", "0.50", "c"]
    for number, (pictures, weights) in enumerate(
        [((given["a"],), None), ((given["a"], given["b"]), [1, 1]), ((given["b"],), None)]
    ):
        generator.take_style(pictures, weights)
        assert torch.allclose(columns[number][1], translate_tensor(generator, contents), atol=1e-5)
    assert (columns[0][1] - columns[2][1]).abs().max() > 0.01


@torch.no_grad()
def test_draws_are_the_same_for_every_content_and_differ_by_seed():
    generator, contents = build("variational"), picture(0).repeat(2, 1, 1, 1)
    columns = draws(generator, contents, {"a": picture(2)}, 2, seed=1)
    assert [caption for caption, _ in columns] == ["a", "1", "2"]
    assert all(torch.equal(pictures[0], pictures[1]) for _, pictures in columns)
    generator.take_style([picture(2)])
    assert torch.allclose(columns[0][1], translate_tensor(generator, contents), atol=1e-5)
    other, same = (draws(generator, contents, {"a": picture(2)}, 2, seed=seed) for seed in (2, 1))
    assert torch.equal(same[2][1], columns[2][1]) and not torch.equal(other[2][1], columns[2][1])
    assert not torch.equal(columns[1][1], columns[2][1])


def test_only_what_has_a_spread_is_drawn_from_and_only_what_takes_styles_walks():
    with pytest.raises(GeneratorFileError, match=r"--samples: its styles are points without a spread; a variational"):
        draws(build("adain"), picture(0), {"a": picture(1)}, 2)
    with pytest.raises(GeneratorFileError, match=r"only those of adain, linear, variational take any"):
        walk(build("resnet"), picture(0), {"a": picture(1), "b": picture(2)}, 3)


def test_contents_are_the_middles_of_pictures(tmp_path: Path):
    image = Image.new("RGB", (60, 20), "black")
    image.paste("white", (20, 0, 40, 20))
    image.save(tmp_path / "wide.png")
    Image.new("RGB", (10, 10), "black").save(tmp_path / "z.png")
    found = read_contents([tmp_path, tmp_path / "wide.png"], 16)
    assert found.shape == (3, 3, 16, 16)
    assert torch.allclose(found[0], torch.ones(3, 16, 16), atol=1e-5) and torch.equal(found[0], found[2])
    assert torch.allclose(found[1], -torch.ones(3, 16, 16))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_generator(tmp_path / "AtoB.safetensors", build("variational"), ABOUT)
    write_pictures(tmp_path / "content", 2)
    write_pictures(tmp_path / "style", 2, seed=5)
    return tmp_path


def test_the_command_writes_one_picture(source: Path, capsys):
    style = str(source / "style" / "00.png")
    given = [str(source), str(source / "content"), "--style", style, style, "--size", "32", "--device", "cpu"]
    for more, columns in ((["--steps", "4"], 5), (["--samples", "2"], 7)):
        written = ["-o", str(source / "grid.png"), "--overwrite"]
        assert run("cyclegan styles", styles.main, [*given, *more, *written]) == 0
        assert Image.open(source / "grid.png").size == (columns * 132 + 4, 2 * 132 + 24)
        assert f"2 contents in {columns - 1} styles" in capsys.readouterr().err
    assert load_generator(source).kept()[0].abs().max() == 0  # nothing is kept


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (["--style", "STYLE"], 2, "two pictures or more to walk between, or --samples"),
        (["--style", "STYLE", "STYLE", "-o", "x.jpg"], 2, "-o x.jpg: name a .png"),
        (["--style", "STYLE", "--samples", "1", "--seed", "9" * 23], 2, "--seed: expected a whole number from 0 to"),
        (["--style", "STYLE", "--steps", "3", "--samples", "1"], 2, "--samples: not allowed with argument --steps"),
        (["--style", "STYLE", "gone.png"], 1, "gone.png"),
        (["--style", "STYLE", "STYLE", "-o", "STYLE"], 1, "which it is made from; choose another output"),
        (["--style", "STYLE", "STYLE", "-o", "CONTENT"], 1, "which it is made from; choose another output"),
        (["--style", "STYLE", "STYLE", "-o", "MINE"], 1, "mine.png is there already; choose another name, or --over"),
        (["--style", "STYLE", "TINY"], 1, "--style: pictures with sides of at least 4 pixels expected"),
    ],
)
def test_a_mistake_is_one_line(source: Path, change: list[str], code: int, words: str, capsys):
    write_pictures(source / "tiny", 1, side=2)
    Image.new("RGB", (4, 4)).save(source / "mine.png")
    named = {"STYLE": "style/00.png", "CONTENT": "content/00.png", "TINY": "tiny/00.png", "MINE": "mine.png"}
    given = [str(source), str(source / "content"), "-o", str(source / "g.png"), "--device", "cpu"]
    given += [str(source / named[value]) if value in named else value for value in change]
    if code == 2:
        with pytest.raises(SystemExit, match="2"):
            styles.main(given)
    else:
        assert run("cyclegan styles", styles.main, given) == code
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_exported_graph_is_told_from_a_generators_own_file(source: Path, capsys):
    (source / "graph.pt2").write_bytes(b"PK" + bytes(90))
    style = str(source / "style" / "00.png")
    given = [str(source / "graph.pt2"), str(source / "content"), "--style", style, style, "-o", str(source / "g.png")]
    assert run("cyclegan styles", styles.main, given) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "graph.pt2 is an exported graph; name the generator's own file" in line
