from __future__ import annotations

import pytest
import torch
from torch import nn

from cyclegan.training.ema import Ema


def test_averages_follow_the_formula():
    network = nn.Linear(1, 1, bias=False)
    ema = Ema({"AtoB": network}, decay=0.5)
    expected = None
    for n, value in enumerate((1.0, 2.0, 4.0, 8.0), start=1):
        network.weight.data.fill_(value)
        ema.update({"AtoB": network})
        decay = min(0.5, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.generators()["AtoB"].weight.item() == pytest.approx(expected)


def test_decay_reaches_what_was_asked_for():
    network = nn.Linear(1, 1, bias=False)
    ema = Ema({"AtoB": network}, decay=0.9)
    network.weight.data.fill_(0.0)
    for _ in range(200):
        ema.update({"AtoB": network})
    network.weight.data.fill_(1.0)
    ema.update({"AtoB": network})
    assert ema.generators()["AtoB"].weight.item() == pytest.approx(0.1)


def test_it_goes_on_from_its_state():
    torch.manual_seed(0)
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    first, second = Ema({"AtoB": one}, 0.99), Ema({"AtoB": two}, 0.99)
    for _ in range(3):
        one.weight.data.normal_()
        first.update({"AtoB": one})
    second.load_state_dict(first.state_dict())
    for ema in (first, second):
        ema.update({"AtoB": two})
    assert torch.equal(first.generators()["AtoB"].weight, second.generators()["AtoB"].weight)


def test_buffers_are_copied():
    network = nn.BatchNorm2d(2)
    ema = Ema({"AtoB": network}, 0.9)
    network.running_mean.fill_(3.0)
    ema.update({"AtoB": network})
    assert ema.generators()["AtoB"].running_mean.tolist() == [3.0, 3.0]
