from __future__ import annotations

import pytest
import torch
from torch import nn

from cyclegan.algorithms import build_algorithm
from cyclegan.algorithms.ugatit import UGATIT
from cyclegan.config import ConfigError, load_config
from tests.algorithms.test_algorithms import NEEDS
from tests.whole import losses_of


def ugatit(networks: dict | None = None, **options) -> UGATIT:
    torch.manual_seed(0)
    networks = {**NEEDS["ugatit"], **(networks or {})}
    return build_algorithm(load_config({"name": "x", "algorithm": {"name": "ugatit", **options}, **networks}))


def pair() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {d: torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1 for d in "AB"}


def test_the_losses_are_the_published_ones_written_down_again():
    ours, batch = ugatit({"discriminator": {"name": "patch", "width": 4, "layers": 2}}), pair()
    terms = dict(losses_of(ours, batch))
    mse, l1, bce = nn.MSELoss(), nn.L1Loss(), nn.BCEWithLogitsLoss()
    a, b = batch["A"], batch["B"]
    for source, target, there, back, critic, name in ((a, b, ours.G_AB, ours.G_BA, ours.D_B, "B"),
                                                      (b, a, ours.G_BA, ours.G_AB, ours.D_A, "A")):  # fmt: skip
        fake, cam_fake = there(source, attention=True)
        same, cam_same = there(target, attention=True)
        real_score, fake_score = critic(target), critic(fake)
        ones, zeros = torch.ones_like(real_score), torch.zeros_like(real_score)
        expected = {
            f"adversarial_{name}": mse(fake_score, ones),
            f"cycle_{'AB'.replace(name, '')}": 10 * l1(back(fake), source),
            f"identity_{name}": 10 * l1(same, target),
            f"attention_{name}": 1000
            * (bce(cam_fake, torch.ones_like(cam_fake)) + bce(cam_same, torch.zeros_like(cam_same))),
        }
        for term, value in expected.items():
            assert terms["generators"][term].item() == pytest.approx(value.item(), rel=1e-4), term
        critic_loss = mse(real_score, ones) + mse(fake_score, zeros)
        assert terms["discriminators"][name].item() == pytest.approx(critic_loss.item(), rel=1e-4)


def test_all_four_scores_of_a_discriminator_add_up():
    ours, batch = ugatit(), pair()
    for network in (ours.D_A, ours.D_B):
        network.eval()  # spectral norm stands still
    terms = dict(losses_of(ours, batch))
    scores = ours.D_B(batch["fake_B"])
    assert len(scores) == 4
    expected = sum(((score - 1) ** 2).mean() for score in scores)
    assert terms["generators"]["adversarial_B"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_mixtures_stay_between_instance_and_layer_norm_and_may_leave_the_border():
    ours = ugatit()
    rhos = [p for name, p in ours.G_AB.named_parameters() if name.endswith("rho")]
    assert len(rhos) == 2 + 2
    for step, rate in enumerate((1e6, 1e-9)):
        losses = losses_of(ours, pair())
        for name, terms in losses:
            if name == "generators":
                gradients = torch.autograd.grad(sum(terms.values()), rhos)
                with torch.no_grad():
                    for rho, gradient in zip(rhos, gradients, strict=True):
                        rho -= rate * gradient
        values = torch.cat([rho.flatten() for rho in rhos])
        assert values.min() >= 0 and values.max() <= 1
        if step == 0:
            assert ((values == 0) | (values == 1)).any()
    assert any(gradient.abs().sum() > 0 for gradient in gradients)  # at the border


def test_discriminators_come_first_and_leave_the_generators_alone():
    ours = ugatit()
    losses = losses_of(ours, pair())
    name, terms = next(losses)
    generators = [p for network in ours.generators().values() for p in network.parameters()]
    gradients = torch.autograd.grad(sum(terms.values()), generators, allow_unused=True)
    assert name == "discriminators" and all(gradient is None for gradient in gradients)


def test_other_generators_are_refused():
    with pytest.raises(ConfigError, match=r"generator\.name: resnet has no attention to train; use ugatit"):
        ugatit({"generator": {"name": "resnet"}})
