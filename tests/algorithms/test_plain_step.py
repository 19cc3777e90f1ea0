"""Whole updates against CycleGAN as everybody writes it: what the benchmark of a step compares with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cyclegan.algorithms import complete_config
from cyclegan.config import load_config
from cyclegan.training.launch import new_accelerator
from cyclegan.training.trainer import Trainer
from tests.benchmarks import load_benchmark


def named(network: nn.Module) -> list[torch.Tensor]:
    """Weights, and the biases of the last convolution.

    Biases before a norm have no gradient but rounding, of which Adam makes full steps.
    """
    parameters = list(network.parameters())
    return [p for p in parameters if p.ndim == 4] + parameters[-1:]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp64", 1e-9), ("no", 1e-5)])
def test_losses_and_updates_are_those_of_the_plain_algorithm(precision: str, tolerance: float, tmp_path: Path):
    options = {
        "name": "x",
        "results": str(tmp_path),
        "generator": {"width": 4, "blocks": 1},
        "discriminator": {"width": 4},
        "speed": {"precision": precision},
        "logging": {"trackers": []},
    }
    torch.manual_seed(0)
    config = complete_config(load_config(options))
    with new_accelerator(config) as accelerator:
        ours = Trainer(config, accelerator)
        plain = load_benchmark("reference").CycleGAN(torch.device("cpu"), width=4, blocks=1)
        for name, network in ours.networks.items():
            other = getattr(plain, name).to(ours.dtype)
            for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
                theirs.data.copy_(mine.data)
        for _ in range(3):
            batch = {domain: torch.rand(2, 3, 32, 32, dtype=ours.dtype) * 2 - 1 for domain in "AB"}
            found = {name: value.item() for name, value in ours.update(dict(batch), 1.0).items()}
            expected = plain.step(batch["A"], batch["B"])
            for term in ("identity", "adversarial", "cycle"):
                value = sum(found[f"generators/{term}_{domain}"] for domain in "AB")
                assert value == pytest.approx(expected[term], rel=tolerance)
            for domain in "AB":
                assert found[f"discriminators/{domain}"] == pytest.approx(expected[domain], rel=tolerance)
            if precision == "no":
                break  # one update on, rounding has moved a few weights by a whole step
        for name, network in ours.networks.items():
            for mine, theirs in zip(named(network), named(getattr(plain, name)), strict=True):
                apart = (mine - theirs).abs()
                assert apart.mean() < tolerance * 2e-2 and (precision == "no" or apart.max() < tolerance), name
