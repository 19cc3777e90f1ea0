from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cyclegan.algorithms.cyclegan import CycleGAN
from cyclegan.training import checkpoint
from cyclegan.training.doctor import Doctor
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from cyclegan.training.remarks import Remark
from cyclegan.training.rollback import Diverged, rollbacks, sound_state, spoiled
from tests.conftest import merged
from tests.training.test_loop import same_weights, weights_of
from tests.whole import whole

EARLY = Remark(1000, "starving", "the device waits", 900)
LATE = Remark(2000, "diverging", "the loss grows", 1800)
SAVING = {"every_images": 4, "keep_last": 9}


def test_only_spoiled_weights_are_a_reason_to_go_back():
    assert spoiled([EARLY, LATE]) == "the loss grows"
    assert spoiled([EARLY]) is spoiled([]) is None


@pytest.mark.parametrize(("states", "expected"), [([500, 1500, 1900], 1500), ([1900], 0), ([], 0)])
def test_the_state_is_the_newest_that_is_sound(states: list[int], expected: int):
    assert sound_state(1800, states) == expected


def test_what_began_within_the_window_of_a_curve_is_not_taken_for_sound():
    doctor = Doctor()
    said = []
    for images in range(10, 8000, 10):  # a line each ten updates, bins of fifty; the loss is high from 5010 on
        loss = 2.0 if images <= 5000 else 200.0
        said += doctor.read(images, images, {"generators": loss, "discriminators": 0.5, "epoch": 0, "images": images})
        if said:
            break
    assert [remark.kind for remark in said] == ["diverging"]
    assert 4500 <= doctor.sound_until() <= 5000


def test_pictures_of_unsettled_generators_are_not_judged_and_leave_nothing_behind():
    doctor, real = Doctor(), torch.rand(4, 3, 8, 8) * 2 - 1
    for updates in (100, 500, 900):
        assert doctor.look(updates, updates, {"AtoB": (real, -real)}) == []
    assert doctor.complaints == {}
    said = [doctor.look(updates, updates, {"AtoB": (real, -real)}) for updates in (1000, 2000)]
    assert [[remark.kind for remark in remarks] for remarks in said] == [[], ["inverted"]]


def test_a_picture_makes_all_since_the_last_good_one_doubtful():
    doctor, real = Doctor(), torch.rand(4, 3, 8, 8) * 2 - 1
    for images in (1000, 2000, 3000):
        assert not doctor.look(images, images, {"AtoB": (real, real * 0.9 + 0.05)})
    doctor.look(4000, 4000, {"AtoB": (real, -real)})
    doctor.sound["curves"] = 9999
    assert doctor.sound_until() == 3000
    assert [remark.kind for remark in doctor.look(5000, 5000, {"AtoB": (real, -real)})] == ["inverted"]
    assert doctor.sound_until() == 3000
    again = Doctor()
    again.load_state_dict(doctor.state_dict())
    assert again.sound_until() == 3000


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Losses are not finite in the tenth update of the first attempt, and in the sixth of the second."""
    updates, plain = [], CycleGAN.losses

    def losses(self, batch):
        updates.append(0)
        factor = float("nan") if len(updates) in (10, 16) else 1
        for name, terms in plain(self, batch):
            yield name, {term: value * factor for term, value in whole(terms).items()}

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
    del failing[:]
    failing += [0] * 100
    undisturbed = train(merged({**options, "name": "undisturbed"}))
    sheets = [(folder / "samples" / "000000000.png").read_bytes() for folder in (run, undisturbed)]
    assert sheets[0] != sheets[1]  # of networks that have learnt nothing yet


def test_a_branch_goes_back_to_where_it_branched_off(options: dict, failing: list):
    failing += [0] * 20
    first = train(merged({**options, "name": "first"}, training={"max_images": 8}))
    del failing[:]
    run = train(merged(options, training={"rollbacks": 2}, saving={"every_epochs": 50}), resume=str(first))
    assert rollbacks(run / "log") == []  # 8 more updates are too few for the tenth
    failing[:] = [0] * 11
    run = train(
        merged({**options, "name": "branch"}, training={"rollbacks": 1}, saving={"every_epochs": 50}), resume=str(first)
    )
    assert [(x["images"], x["to"]) for x in rollbacks(run / "log")] == [(14, 0)]
    assert [line["images"] for line in read_metrics(run / "log" / "metrics.jsonl")] == [10, 12, 14, 16]


def test_a_signal_or_a_time_limit_is_not_forgotten_by_going_back(options: dict, failing: list):
    with pytest.raises(SystemExit) as stop:
        train(merged(options, saving=SAVING, training={"rollbacks": 2, "max_time": 1e-6}))
    assert stop.value.code == 0


def test_a_torn_line_does_not_keep_a_run_from_going_on(options: dict, failing: list):
    run = train(merged(options, saving=SAVING, training={"rollbacks": 2, "max_images": 12}))
    with (run / "log" / "rollbacks.jsonl").open("a") as file:
        file.write('{"images": 1')
    assert len(rollbacks(run / "log")) == 1
    train(merged(options, saving=SAVING, training={"rollbacks": 2}))


def test_trackers_start_afresh(options: dict, failing: list):
    run = train(merged(options, saving=SAVING, training={"rollbacks": 2}, logging={"trackers": ["tensorboard"]}))
    events = EventAccumulator(str(run / "log"))
    events.Reload()
    steps = [event.step for event in events.Scalars("generators")]
    assert steps == list(range(2, 18, 2))


def test_the_doctors_word_counts(options: dict, monkeypatch: pytest.MonkeyPatch):
    said = []

    def look(self, images, updates, pictures):
        said.append(images)
        self.sound = {"pictures": min(images, 7)}
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
