"""Whole runs of every algorithm: train, stop, resume, load, translate; on two processes too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cyclegan.algorithms import algorithms
from cyclegan.inference.generator_file import load_generator
from cyclegan.training import checkpoint
from cyclegan.training.loop import train
from tests.algorithms.test_algorithms import NETWORKS, OWN_NETWORKS
from tests.conftest import merged
from tests.processes import run_training


def options_of(name: str, options: dict, run: str, **training) -> dict:
    networks = OWN_NETWORKS.get(name, NETWORKS)
    return merged({**options, **networks, "name": run, "algorithm": {"name": name}}, training=training)


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = sorted(run.glob("*.safetensors"))
    assert files
    return {f"{path.stem}.{name}": value for path in files for name, value in load_file(path).items()}


def same(one: Path, two: Path) -> bool:
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", sorted(algorithms()))
def test_a_stopped_run_goes_on_bit_for_bit_and_its_generators_translate(name: str, options: dict):
    whole = train(options_of(name, options, "whole", max_images=8))
    train(options_of(name, options, "parts", max_images=5))
    parts = train(options_of(name, options, "parts", max_images=8))
    assert same(whole, parts)
    states = [
        torch.load(checkpoint.all_states(run / "state")[-1] / "rank0.pt", weights_only=True) for run in (whole, parts)
    ]
    assert torch.equal(states[0]["random"]["torch"], states[1]["random"]["torch"])
    for path in whole.glob("*.safetensors"):
        generator = load_generator(path)
        assert generator(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(algorithms()))
def test_two_processes_train_and_resume(name: str, options: dict):
    for run, limit in (("whole", 16), ("parts", 8), ("parts", 16)):
        done = run_training(options_of(name, options, run, max_images=limit), 2)
        assert done.returncode == 0, done.stderr
    results = Path(options["results"])
    assert same(results / "whole", results / "parts")
