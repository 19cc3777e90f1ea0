"""What Accelerate's trackers are told, and that none of them can end a run."""

from __future__ import annotations

from typing import ClassVar

import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType

from cyclegan.config import ConfigError
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from tests.conftest import merged


def test_a_tracker_that_is_not_installed_is_named(options: dict):
    with pytest.raises(ConfigError, match=r"logging\.trackers: no comet_ml here; pip install it"):
        train(merged(options, logging={"trackers": ["tensorboard", "comet_ml"]}))


def test_trackers_are_told_the_runs_name(options: dict, monkeypatch):
    class Fake(GeneralTracker):
        name, requires_logging_directory, tracker = "wandb", False, None
        told: ClassVar[list] = []

        def __init__(self, run_name: str):
            super().__init__()
            self.told.append(run_name)

        def log(self, values: dict, step: int | None = None, **_: object) -> None:
            self.told.append(step)

    available = [LoggerType.TENSORBOARD, LoggerType.WANDB]
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Fake)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: available)
    monkeypatch.setattr("cyclegan.training.launch.get_available_trackers", lambda: available)
    train(merged(options, logging={"trackers": ["wandb"]}, training={"max_images": 4}))
    assert Fake.told == ["tiny", 2, 4]


def test_a_tracker_that_fails_is_let_go_and_all_else_goes_on(options: dict, monkeypatch, capsys):
    def full(tracker: GeneralTracker, values: dict, step: int, **_: object) -> None:
        if step >= 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracking.TensorBoardTracker, "log", full)
    run = train(merged(options, logging={"trackers": ["tensorboard"]}))
    assert [line["images"] for line in read_metrics(run / "log" / "metrics.jsonl")] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert capsys.readouterr().out.count("tensorboard gets no more curves ([Errno 28] No space left on device)") == 1
