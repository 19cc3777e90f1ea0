from __future__ import annotations

from pathlib import Path

import pytest

from cyclegan.algorithms.cyclegan import CycleGAN
from cyclegan.training import checkpoint
from cyclegan.training.doctor import Doctor
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from cyclegan.training.remarks import Remark
from cyclegan.training.rollback import Diverged, rollbacks, spoiled_since, state_before
from tests.conftest import merged
from tests.training.test_loop import same_weights, weights_of

EARLY = Remark(1000, "starving", "the device waits", 900)
LATE = Remark(2000, "diverging", "the loss grows", 1800)
SAVING = {"every_images": 4, "keep_last": 9}


def test_only_spoiled_weights_are_a_reason_to_go_back():
    assert spoiled_since([EARLY, LATE]) == (1800, "the loss grows")
    assert spoiled_since([EARLY]) == spoiled_since([]) == (None, "")


@pytest.mark.parametrize(("states", "expected"), [([500, 1500, 1900], 1500), ([1800], 0), ([], 0)])
def test_the_state_is_the_newest_from_before_it_was_first_seen(states: list[int], expected: int):
    assert state_before(1800, states) == expected


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Losses are not finite in the tenth update of the first attempt, and in the sixth of the second."""
    updates, plain = [], CycleGAN.losses

    def losses(self, batch):
        updates.append(0)
        for name, terms in plain(self, batch):
            yield (
                name,
                {term: value * (float("nan") if len(updates) in (10, 16) else 1) for term, value in terms.items()},
            )

    monkeypatch.setattr(CycleGAN, "losses", losses)
    return updates


def test_a_run_goes_back_to_the_last_good_state_and_on_with_other_draws(options: dict, failing: list):
    run = train(merged(options, saving=SAVING, training={"rollbacks": 2}))
    assert len(failing) == 10 + 6 + 4  # from 8 after the first; after the second, which is at 14, from 12
    assert [(x["images"], x["to"]) for x in rollbacks(run / "log")] == [(10, 8), (14, 12)]
    assert [line["images"] for line in read_metrics(run / "log" / "metrics.jsonl")] == list(range(2, 18, 2))
    assert [state.name for state in checkpoint.all_states(run / "state")] == [f"{i:09d}" for i in (4, 8, 12, 16)]
    del failing[:]
    failing += [0] * 100
    assert not same_weights(run, train(merged({**options, "name": "undisturbed"}, saving=SAVING)))


def test_once_it_has_gone_back_often_enough_a_run_stops(options: dict, failing: list):
    with pytest.raises(Diverged):
        train(merged(options, saving=SAVING, training={"rollbacks": 1}))


def test_a_run_that_was_interrupted_after_going_back_goes_on_with_the_new_seed(options: dict, failing: list):
    options = merged(options, saving=SAVING, training={"rollbacks": 2})
    whole = train({**options, "name": "whole"})
    del failing[:]
    train(merged({**options, "name": "parts"}, training={"max_images": 15, "rollbacks": 2}))
    assert same_weights(whole, train({**options, "name": "parts"}))


def test_without_a_state_it_starts_anew_from_other_weights(options: dict, failing: list):
    run = train(merged(options, training={"rollbacks": 2}, saving={"every_epochs": 50}))
    assert [(x["images"], x["to"]) for x in rollbacks(run / "log")] == [(10, 0), (6, 0)]
    assert (run / "state" / "000000016").is_dir()
    assert not (run / "samples" / "000000010.png").exists()


def test_the_doctors_word_counts(options: dict, monkeypatch: pytest.MonkeyPatch):
    said = []

    def look(self, images, updates, pictures):
        said.append(images)
        return [Remark(images, "inverted", "light into dark", 7)] if len(said) == 2 else []

    monkeypatch.setattr(Doctor, "look", look)
    train(merged({**options, "name": "deaf"}, saving=SAVING))
    assert said == [0, 8, 16]
    del said[:]
    run = train(merged(options, saving=SAVING, training={"rollbacks": 1}))
    assert said == [0, 8, 8, 16]
    (rollback,) = rollbacks(run / "log")
    assert rollback == {"images": 8, "to": 4, "why": "light into dark"}
    assert not same_weights(run, Path(options["results"]) / "deaf")
    assert all(value.isfinite().all() for value in weights_of(run).values())
