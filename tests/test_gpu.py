"""What is stated of a CPU elsewhere, once more on an NVIDIA GPU."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cyclegan.algorithms import algorithms
from cyclegan.commands import run
from cyclegan.commands.stylize import main as stylize
from cyclegan.config import load_config
from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.split import translate_split
from cyclegan.inference.picture_files import Picture
from cyclegan.inference.tiling.tiles import Tiling
from cyclegan.inference.translator import Translator
from cyclegan.networks import build_generator
from cyclegan.networks.initialize import initialize
from cyclegan.training.loop import train
from cyclegan.training.speed import can_compile
from tests.algorithms.test_algorithms import build, everything, suited
from tests.conftest import merged, write_pictures
from tests.neural_style.test_stylize_command import TINY
from tests.whole import losses_of

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.* has random weights")]
ALL_PLACES = {"algorithm": {"patches": 10**6}}  # else CUT compares others on each device


@pytest.mark.parametrize("name", sorted({*algorithms()} - {"variational"}))  # which draws from the device's generator
def test_losses_and_gradients_are_those_of_a_cpu(name: str):
    ours = build(name, **(ALL_PLACES if name in ("cut", "dclgan") else {})).double()
    torch.manual_seed(1)
    batch = {domain: torch.rand(2, 3, 32, 32, dtype=torch.float64) * 2 - 1 for domain in ("A", "B")}
    found = []
    for device in ("cpu", "cuda"):
        here = copy.deepcopy(ours).to(device)
        torch.manual_seed(2)
        values = {}
        for optimizer, terms in losses_of(here, {domain: images.to(device) for domain, images in batch.items()}):
            parameters = [p for network in here.trained()[optimizer] for p in network.parameters()]
            gradients = torch.autograd.grad(sum(terms.values()), parameters, retain_graph=True)
            values |= {f"{optimizer}/{term}": value.item() for term, value in terms.items()}
            values |= {f"{optimizer}/gradient {i}": x.norm().item() for i, x in enumerate(gradients)}
        found.append(values)
    assert found[0] == pytest.approx(found[1], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", sorted(algorithms()))
def test_every_algorithm_trains_goes_on_and_is_scored(name: str, options: dict, pictures: Path):
    (pictures / "trainA" / "04.png").unlink()  # as many on both sides, and so pairs
    options = suited(name, merged(options, training={"ema": 0.9}, speed={"choice": "auto", "compile": False}))
    train(merged(options, training={"max_images": 6}))
    folder = train(options)
    assert "CUDA" in json.loads((folder / "log" / "environment.json").read_text())["device"]
    assert all(value.isfinite().all() for value in everything(folder).values())
    plain = Extractor("plain", lambda x: x.mean((2, 3)), lambda x: x / 255, device="cuda")
    assert all(result["scores"] for result in translate_split(folder, metrics=["fid"], extractor=plain).values())


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
def test_deterministic_runs_go_on_bit_for_bit(padding: str, options: dict):
    options = merged(options, generator={"padding": padding}, training={"ema": 0.9}, deterministic=True)
    whole = everything(train({**options, "name": "whole"}))
    train(merged({**options, "name": "parts"}, training={"max_images": 6}))
    parts = everything(train({**options, "name": "parts"}))
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_what_auto_chooses_trains(options: dict):
    folder = train({**options, "speed": "auto"})
    chosen = load_config(folder / "config.yaml").speed
    assert chosen.compile == can_compile(torch.device("cuda"))
    assert (chosen.precision == "bf16") == (torch.cuda.get_device_capability() >= (8, 0))


def shares(picture: Picture) -> np.ndarray:
    """Its pixels, in [0, 1]."""
    full = 1 if picture.pixels.dtype == np.float32 else np.iinfo(picture.pixels.dtype).max
    return picture.pixels.astype(float) / full


@pytest.mark.parametrize("skip", [False, True])
def test_pictures_are_translated_as_on_a_cpu_whole_and_in_tiles(skip: bool):
    torch.manual_seed(0)
    generator = initialize(build_generator({"name": "resnet", "width": 4, "blocks": 2, "skip": skip}), gain=0.3)
    picture = Picture(np.random.default_rng(0).random((75, 90, 3), dtype=np.float32))
    expected = shares(Translator(generator, "cpu", "fp32")([picture])[0])
    tiled = Tiling(above=1, side=32)
    for translator in (Translator(generator, "cuda", "fp32"), Translator(generator, "cuda", "fp32", tiled)):
        assert np.abs(shares(translator([picture])[0]) - expected).max() < 1e-3
    rounded = Translator(generator, "cuda")
    assert rounded.precision == ("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32")
    bytes_ = Picture((picture.pixels * 255).astype(np.uint8))
    assert (
        np.abs(shares(rounded([bytes_])[0]) - shares(Translator(generator, "cpu", "fp32")([bytes_])[0])).mean() < 0.01
    )


def test_a_picture_is_painted(tmp_path: Path):
    write_pictures(tmp_path / "content", 1, side=48)
    write_pictures(tmp_path / "style", 1, side=40, seed=7)
    given = [tmp_path / "content", tmp_path / "style" / "00.png", "-o", tmp_path / "out", *TINY[:-1], "cuda"]
    assert run("cyclegan stylize", stylize, [str(argument) for argument in given]) == 0
    assert (tmp_path / "out" / "00.png").exists()
