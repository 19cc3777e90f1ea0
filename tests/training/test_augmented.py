"""Runs whose discriminators see augmented pictures."""

from __future__ import annotations

import pytest
import torch

from cyclegan.training.checkpoint import all_states
from cyclegan.training.loop import train
from tests.conftest import merged

FIXED = {"policy": ["colour"], "p": 0.5}
ADAPTIVE = {"policy": ["colour"], "p": 0.25, "target": 0.6}


@pytest.mark.parametrize(("before", "after"), [(FIXED, ADAPTIVE), (ADAPTIVE, FIXED), ({}, ADAPTIVE), (ADAPTIVE, {})])
def test_augmentation_may_become_adaptive_or_fixed_in_the_middle_of_a_run(before: dict, after: dict, options: dict):
    train(merged({**options, "diffaugment": before}, training={"max_images": 6}))
    run = train({**options, "diffaugment": after})
    state = torch.load(all_states(run / "state")[-1] / "shared.pt", weights_only=True)["trainer"]
    found = {key: value.tolist() for key, value in state["networks"]["D_A"].items() if key.startswith("diffaugment.")}
    adaptive = {"diffaugment.p": 0.25, "diffaugment.signs": [pytest.approx(0, abs=10), 10]}  # of 16 - 6 pictures
    assert found == (adaptive if after is ADAPTIVE else {})


def test_a_p_that_has_moved_is_kept_by_a_run_that_goes_on(options: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cyclegan.networks.diffaugment.EVERY", 1)
    adaptive = {**ADAPTIVE, "ramp_images": 1000}
    run = train(merged({**options, "diffaugment": adaptive}, training={"max_images": 6}))

    def p() -> float:
        state = torch.load(all_states(run / "state")[-1] / "shared.pt", weights_only=True)["trainer"]
        return state["networks"]["D_A"]["diffaugment.p"].item()

    moved = p()
    train(merged({**options, "diffaugment": {**adaptive, "ramp_images": 10**9}}))  # moves no further
    assert moved != 0.25 and p() == pytest.approx(moved, abs=1e-6)
