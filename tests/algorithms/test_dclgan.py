from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cyclegan.algorithms import build_algorithm
from cyclegan.config import load_config

NETWORKS = {"generator": {"width": 4, "blocks": 1}, "discriminator": {"width": 4, "layers": 2}}


def encode(model: torch.nn.Sequential, image: torch.Tensor) -> list[torch.Tensor]:
    features = []
    for number, layer in enumerate(model):
        image = layer(image)
        if number in (4, 7, 10):  # the down-samplings and the only block; no pixels
            features.append(image)
    return features


def plain_nce(keys: list, key_heads: list, queries: list, query_heads: list) -> torch.Tensor:
    total = 0.0
    for key, key_head, query, query_head in zip(keys, key_heads, queries, query_heads, strict=True):
        k, q = (F.normalize(f(x.flatten(2).transpose(1, 2)), dim=2) for f, x in ((key_head, key), (query_head, query)))
        total = total - (torch.einsum("npc,nqc->npq", q, k.detach()) / 0.07).log_softmax(2).diagonal(0, 1, 2).mean()
    return total / len(keys)


def test_losses_and_gradients_are_those_of_the_published_algorithm():
    torch.manual_seed(0)
    algorithm = {"name": "dclgan", "width": 8, "patches": 9999}
    ours = build_algorithm(load_config({"name": "x", "algorithm": algorithm, **NETWORKS})).double()
    a, b = (torch.rand(2, 3, 24, 24, dtype=torch.float64) * 2 - 1 for _ in "AB")
    found = {f"{name}/{term}": value for name, terms in ours.losses({"A": a, "B": b}) for term, value in terms.items()}

    E_A, E_B = ours.G_AB.model, ours.G_BA.model
    fake_b, fake_a = ours.G_AB(a), ours.G_BA(b)
    expected = {
        f"discriminators/{d}": 0.5 * ((D(real) - 1).square().mean() + D(fake.detach()).square().mean())
        for d, D, real, fake in (("A", ours.D_A, a, fake_a), ("B", ours.D_B, b, fake_b))
    }
    expected |= {
        "generators/adversarial_A": (ours.D_A(fake_a) - 1).square().mean() / 2,
        "generators/adversarial_B": (ours.D_B(fake_b) - 1).square().mean() / 2,
        "generators/nce_A": plain_nce(encode(E_A, a), ours.heads_A.heads, encode(E_B, fake_b), ours.heads_B.heads),
        "generators/nce_B": plain_nce(encode(E_B, b), ours.heads_B.heads, encode(E_A, fake_a), ours.heads_A.heads),
        "generators/identity_A": (ours.G_BA(a) - a).abs().mean() / 2,
        "generators/identity_B": (ours.G_AB(b) - b).abs().mean() / 2,
    }  # nce counts 2, halved
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9), name
    parameters = [p for network in ours.trained()["generators"] for p in network.parameters()]
    gradients = [
        torch.autograd.grad(sum(value for name, value in terms.items() if name.startswith("gen")), parameters)
        for terms in (found, expected)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-7, atol=1e-12)
