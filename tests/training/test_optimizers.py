from __future__ import annotations

import pytest
import torch
from torch import nn

from cyclegan.config import ConfigError, Optimizer
from cyclegan.training.optimizers import check_groups, new_optimizer

GRADIENTS = (3.0, -1.0)


def after_two_updates(group: str = "generators", **section) -> float:
    """Where a weight of 2 goes."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = new_optimizer(Optimizer(**section), group, iter([weight]))
    for gradient in GRADIENTS:
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return weight.item()


def adam_by_hand(lr: float, beta_1: float, beta_2: float, decay: float = 0.0, decoupled: bool = False) -> float:
    """Kingma and Ba 2015, algorithm 1; decoupled: Loshchilov and Hutter 2019, algorithm 2."""
    weight, m, v = 2.0, 0.0, 0.0
    for t, gradient in enumerate(GRADIENTS, start=1):
        if decoupled:
            weight -= lr * decay * weight
        else:
            gradient += decay * weight
        m, v = beta_1 * m + (1 - beta_1) * gradient, beta_2 * v + (1 - beta_2) * gradient**2
        weight -= lr * (m / (1 - beta_1**t)) / ((v / (1 - beta_2**t)) ** 0.5 + 1e-8)
    return weight


def test_adam_and_adamw_are_the_papers_and_differ_in_the_decay():
    options = {"lr": 0.1, "betas": (0.5, 0.9), "weight_decay": 0.2}
    assert after_two_updates(name="adam", **options) == pytest.approx(adam_by_hand(0.1, 0.5, 0.9, 0.2))
    assert after_two_updates(name="adamw", **options) == pytest.approx(adam_by_hand(0.1, 0.5, 0.9, 0.2, decoupled=True))


def test_sgd_has_momentum_and_decay():
    velocity = 3 + 0.2 * 2.0
    weight = 2 - 0.1 * velocity
    velocity = 0.5 * velocity + (-1 + 0.2 * weight)
    expected = weight - 0.1 * velocity
    assert after_two_updates(name="sgd", lr=0.1, momentum=0.5, weight_decay=0.2) == pytest.approx(expected)


def test_rmsprop_divides_by_the_root_of_the_mean_square_and_has_momentum():
    weight, square, velocity = 2.0, 0.0, 0.0
    for gradient in GRADIENTS:
        gradient += 0.2 * weight
        square = 0.99 * square + 0.01 * gradient**2
        velocity = 0.5 * velocity + gradient / (square**0.5 + 1e-8)
        weight -= 0.1 * velocity
    assert after_two_updates(name="rmsprop", lr=0.1, momentum=0.5, weight_decay=0.2) == pytest.approx(weight)


def test_a_groups_values_take_the_place_of_the_common_ones_and_the_rest_stays():
    groups = {"discriminators": {"lr": 0.01, "betas": (0.0, 0.9)}}
    section = {"lr": 0.1, "betas": (0.5, 0.999), "weight_decay": 0.2, "groups": groups}
    assert after_two_updates("generators", **section) == pytest.approx(adam_by_hand(0.1, 0.5, 0.999, 0.2))
    assert after_two_updates("discriminators", **section) == pytest.approx(adam_by_hand(0.01, 0.0, 0.9, 0.2))


def test_adam_is_fused_where_all_weights_are_on_a_device_that_has_it():
    here, elsewhere = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, device="meta"))
    assert new_optimizer(Optimizer(), "generators", [here]).defaults["fused"] is True
    assert new_optimizer(Optimizer(), "generators", [here, elsewhere]).defaults["fused"] is None


def test_groups_that_no_optimizer_has_are_named_in_order_with_the_choices():
    section = Optimizer(groups={"critics": {"lr": 1}, "generators": {"lr": 1}, "actors": {"lr": 1}})
    with pytest.raises(ConfigError, match=r"no actors, critics; choices: generators, discriminators$"):
        check_groups(section, ["generators", "discriminators"])
    check_groups(Optimizer(groups={"generators": {"lr": 1}}), ["generators", "discriminators"])
