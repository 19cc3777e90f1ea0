from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from cyclegan.config import Schedule
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from cyclegan.training.schedules import LearningRate
from tests.conftest import merged


def factors(name: str, epochs: int = 100, decay_epochs: int = 100, **options) -> list[float]:
    """The factor at the start of each epoch, of ten images."""
    rate = LearningRate(Schedule(name=name, **options), epochs, decay_epochs)
    return [rate.factor(epoch, 10 * epoch) for epoch in range(epochs + decay_epochs)]


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
        rate = LearningRate(Schedule(**options), epochs=2, decay_epochs=3)
        assert [rate.factor(epoch, 10 * epoch) for epoch in (4, 5, 7)] == [expected] * 3
    rate = LearningRate(Schedule(name="cosine"), epochs=2, decay_epochs=3)
    assert rate.factor(7.5, 75) == 0  # it would climb again


def test_a_run_that_goes_on_as_plateau_begins_there_at_the_full_rate():
    lengths = {"epochs": 9, "decay_epochs": 0}
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
    rate = LearningRate(Schedule(name="cosine"), epochs=2, decay_epochs=0)
    assert [rate.factor(place, 0) for place in (0.5, 1.5)] == pytest.approx([0.5 + 0.125**0.5, 0.5 - 0.125**0.5])


def test_cosine_ends_with_the_run_when_epochs_get_another_length(options: dict):
    """Eight pairs in two epochs of four, then four in two of two: half the run is left, and half the rate."""
    options = merged(options, schedule={"name": "cosine"}, logging={"log_every": 1}, training={"decay_epochs": 0})
    options = merged(options, training={"epochs": 4, "max_images": 8})
    train(options)
    folder = train(merged(options, training={"batches_per_epoch": 2, "max_images": None}))
    rates = [line["lr/generators"] / 2e-4 for line in read_metrics(folder / "log" / "metrics.jsonl")]
    places = [*(i / 16 for i in range(8)), *(0.5 + i / 8 for i in range(4))]
    assert rates == pytest.approx([0.5 + 0.5 * math.cos(math.pi * place) for place in places])


def test_constant_stays():
    assert set(factors("constant")) == {1.0}


def test_warmup_rises_over_its_images():
    rate = LearningRate(Schedule(name="constant", warmup_images=10), 1, 0)
    assert [rate.factor(0, images) for images in (0, 4, 9, 50)] == pytest.approx([0.1, 0.5, 1, 1])


def test_plateau_is_torchs_on_the_quantity_it_is_told():
    rate = LearningRate(Schedule(name="plateau", factor=0.2, patience=1, threshold=0.01), 9, 0)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=1, threshold=0.01)
    for quantity in (3.0, 2.0, 2.0, 1.999, 2.5, 1.0, 1.2, 1.2, 1.2):
        rate.end_epoch(quantity)
        oracle.step(quantity)
        assert rate.factor(0, 0) == optimizer.param_groups[0]["lr"]
    assert rate.factor(0, 0) < 1


def test_plateau_drops_for_losses_below_zero_too():
    """PyTorch's does not: its threshold is then above the best."""
    schedule = Schedule(name="plateau", factor=0.1, patience=1, threshold=0.01)
    for watched, expected in (
        ([-5.0, -5.0, -5.0], [1, 1, 0.1]),
        ([-5.0, -4.9, -4.8], [1, 1, 0.1]),
        ([-5.0, -5.1, -5.2, -5.3], [1, 1, 1, 1]),
        ([1.0, 0.5, 0.0, -1.0, -1.001, -1.002], [1, 1, 1, 1, 1, 0.1]),
    ):
        rate, found = LearningRate(schedule, 9, 0), []
        for quantity in watched:
            rate.end_epoch(quantity)
            found.append(rate.factor(0, 0))
        assert found == pytest.approx(expected), watched


def test_plateau_compares_no_loss_with_another():
    one = LearningRate(Schedule(name="plateau", patience=1, watch="discriminators"), 9, 0)
    for _ in range(3):
        one.end_epoch(0.3)
    two = LearningRate(Schedule(name="plateau", patience=1, watch="generators"), 9, 0)
    two.load_state_dict(one.state_dict())
    for quantity in (5.0, 4.7, 4.4, 4.1):
        two.end_epoch(quantity)
    assert two.factor(0, 0) == one.factor(0, 0) == pytest.approx(0.2)


def test_plateau_goes_on_from_its_state():
    one = LearningRate(Schedule(name="plateau", patience=1), 9, 0)
    for _ in range(3):
        one.end_epoch(1.0)
    two = LearningRate(Schedule(name="plateau", patience=1), 9, 0)
    two.load_state_dict(one.state_dict())
    for rate in (one, two):
        rate.end_epoch(1.0)
        rate.end_epoch(1.0)
    assert one.factor(0, 0) == two.factor(0, 0) < 0.2
