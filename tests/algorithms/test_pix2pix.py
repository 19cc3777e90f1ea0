from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cyclegan.algorithms import build_algorithm
from cyclegan.algorithms.pix2pix import Pix2Pix
from cyclegan.config import ConfigError, load_config

NETWORKS = {"generator": {"width": 4, "blocks": 1}, "discriminator": {"width": 4, "layers": 2}}


def pix2pix(data: dict | None = None, **options) -> Pix2Pix:
    torch.manual_seed(0)
    data = {"pairing": "paired", "B": {"channels": 1}, **(data or {})}
    config = {"name": "x", "algorithm": {"name": "pix2pix", **options}, "data": data, **NETWORKS}
    return build_algorithm(load_config(config)).double()


def pair() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {d: torch.rand(2, c, 32, 32, dtype=torch.float64) * 2 - 1 for d, c in (("A", 3), ("B", 1))}


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_losses_are_the_papers(direction: str):
    """Equations 1, 3 and 4 with logits: E[log D(x, y)] + E[log(1 - D(x, G(x)))], halved for D, and 100 |y - G(x)|."""
    ours, batch = pix2pix(direction=direction), pair()
    source, target = direction.split("to")
    ((_, generator),) = ours.generators().items()
    critic = ours.D_B if target == "B" else ours.D_A
    x, y = batch[source], batch[target]
    fake = generator(x)
    good, bad = (critic(torch.cat([x, z], 1)).sigmoid() for z in (y, fake))
    expected = {
        target: -0.5 * (good.log().mean() + (1 - bad).log().mean()),
        f"adversarial_{target}": -bad.log().mean(),
        f"l1_{target}": 100 * (y - fake).abs().mean(),
    }
    found = {term: value for _, terms in ours.losses(batch) for term, value in terms.items()}
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9), name


def test_the_discriminators_update_leaves_the_generator_alone():
    ours, batch = pix2pix(), pair()
    name, terms = next(iter(ours.losses(batch)))
    assert name == "discriminators"
    sum(terms.values()).backward()
    assert all(p.grad is None for p in ours.G_AB.parameters())
    assert all(p.grad is not None for p in ours.D_B.parameters())


def test_the_discriminator_judges_the_output_beside_its_input():
    ours, batch = pix2pix(adversarial="lsgan"), pair()
    (_, terms), (_, other) = next(iter(ours.losses(batch))), next(iter(ours.losses({**batch, "A": batch["A"].flip(0)})))
    assert terms["B"].item() != other["B"].item()
    assert F.mse_loss(ours.G_AB(batch["A"]).flip(0), ours.G_AB(batch["A"].flip(0))).item() < 1e-20  # but not by it


def test_both_directions_are_two_runs_in_one():
    ours = pix2pix(direction="both")
    assert list(ours.generators()) == ["AtoB", "BtoA"]
    found = [list(terms) for _, terms in ours.losses(pair())]
    assert found == [["B", "A"], ["adversarial_B", "l1_B", "adversarial_A", "l1_A"]]


def test_without_pairs_it_says_so():
    with pytest.raises(ConfigError, match=r"data\.pairing.*paired.*'random'"):
        pix2pix({"pairing": "random"})
