from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from cyclegan.config import Schedule
from cyclegan.training.schedules import LearningRate


def factors(name: str, epochs: int = 100, decay_epochs: int = 100, epoch_images: int = 10, **options) -> list[float]:
    """The factor at the start of each epoch."""
    rate = LearningRate(Schedule(name=name, **options), epochs, decay_epochs, epoch_images)
    return [rate.factor(epoch, epoch * epoch_images) for epoch in range(epochs + decay_epochs)]


def test_linear_is_the_references():
    values = factors("linear")
    assert values[:100] == [1.0] * 100
    assert values[100] == pytest.approx(100 / 101) and round(values[100], 4) == 0.9901
    assert round(values[149], 3) == 0.505 and round(values[199], 4) == 0.0099


def test_linear_takes_each_length_for_what_it_is():
    assert factors("linear", epochs=2, decay_epochs=3) == pytest.approx([1, 1, 3 / 4, 2 / 4, 1 / 4])
    assert factors("linear", epochs=0, decay_epochs=1) == [1 / 2]


def test_an_update_that_goes_beyond_the_run_has_the_last_epochs_rate():
    """Where updates of several batches do not divide an epoch, the last is a whole one all the same."""
    for options, expected in (({"name": "linear"}, 1 / 4), ({"name": "step", "step_epochs": 5, "gamma": 0.1}, 1)):
        rate = LearningRate(Schedule(**options), epochs=2, decay_epochs=3, epoch_images=10)
        assert [rate.factor(epoch, 10 * epoch) for epoch in (4, 5, 7)] == [expected] * 3
    rate = LearningRate(Schedule(name="cosine"), epochs=2, decay_epochs=3, epoch_images=10)
    assert rate.factor(7, 75) == 0  # it would climb again


def test_a_run_that_goes_on_as_plateau_begins_there_at_the_full_rate():
    lengths = {"epochs": 9, "decay_epochs": 0, "epoch_images": 10}
    before = LearningRate(Schedule(name="linear", patience=0), **lengths)
    for _ in range(5):
        before.end_epoch(1.0)
    after = LearningRate(Schedule(name="plateau", patience=0), **lengths)
    after.load_state_dict(before.state_dict())
    assert after.factor(5, 50) == 1


def test_step_drops_every_so_many_epochs():
    values = factors("step", step_epochs=50, gamma=0.1)
    assert [values[e] for e in (0, 49, 50, 100, 150)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])


def test_cosine_falls_over_the_whole_run_and_never_climbs():
    values = factors("cosine")
    assert values[0] == 1 and values[100] == pytest.approx(0.5) and values[199] < 1e-3
    assert all(later < earlier for earlier, later in pairwise(values))


def test_constant_stays():
    assert set(factors("constant")) == {1.0}


def test_warmup_rises_over_its_images():
    rate = LearningRate(Schedule(name="constant", warmup_images=10), 1, 0, 100)
    assert [rate.factor(0, images) for images in (0, 4, 9, 50)] == pytest.approx([0.1, 0.5, 1, 1])


def test_plateau_is_torchs_on_the_quantity_it_is_told():
    rate = LearningRate(Schedule(name="plateau", factor=0.2, patience=1, threshold=0.01), 9, 0, 1)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=1, threshold=0.01)
    for quantity in (3.0, 2.0, 2.0, 1.999, 2.5, 1.0, 1.2, 1.2, 1.2):
        rate.end_epoch(quantity)
        oracle.step(quantity)
        assert rate.factor(0, 0) == optimizer.param_groups[0]["lr"]
    assert rate.factor(0, 0) < 1


def test_plateau_goes_on_from_its_state():
    one = LearningRate(Schedule(name="plateau", patience=1), 9, 0, 1)
    for _ in range(3):
        one.end_epoch(1.0)
    two = LearningRate(Schedule(name="plateau", patience=1), 9, 0, 1)
    two.load_state_dict(one.state_dict())
    for rate in (one, two):
        rate.end_epoch(1.0)
        rate.end_epoch(1.0)
    assert one.factor(0, 0) == two.factor(0, 0) < 0.2
