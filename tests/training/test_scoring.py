from __future__ import annotations

import json
import signal
from itertools import count
from pathlib import Path

import pytest
import torch

from cyclegan.config import ConfigError
from cyclegan.data.images import ImageError
from cyclegan.evaluation.evaluator import evaluate
from cyclegan.evaluation.extractors import efficientnet_lite0
from cyclegan.evaluation.split import translate_split
from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.training import checkpoint
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from cyclegan.training.stop import Stopper
from tests.conftest import full_disk, merged, write_pictures
from tests.processes import run_training
from tests.training.test_loop import same_weights

SCORED = {
    "data": {"crop_size": 40, "load_size": 40},
    "evaluation": {"every_epochs": 1, "metrics": ["kid"], "extractor": "effnet-lite0"},
    "saving": {"keep_last": 1, "keep_best": 1},
}
KID = "metrics/AtoB/kid_effnet-lite0"


def scores(run: Path) -> dict[int, float]:
    return {line["images"]: line[KID] for line in read_metrics(run / "log" / "metrics.jsonl") if KID in line}


def test_scores_are_those_of_the_translated_files_and_the_best_state_stays(
    options: dict, tmp_path: Path, capfd: pytest.CaptureFixture
):
    """With masks in domain A only."""
    write_pictures(tmp_path / "masks", 4, seed=9)
    run = train(merged(merged(options, **SCORED), data={"A": {"test_mask": str(tmp_path / "masks")}}))
    found = scores(run)
    assert list(found) == [4, 8, 12, 16]
    best = min(found, key=found.get)
    assert [int(state.name) for state in checkpoint.all_states(run / "state")] == sorted({best, 16})
    translate_split(run, batch_size=1)
    last = read_metrics(run / "log" / "metrics.jsonl")[-1]
    for way in ("AtoB", "BtoA"):
        real = Path(options["data"]["root"]) / f"test{way[-1]}"
        oracle = evaluate(run / "test" / way, real, efficientnet_lite0(), ["kid"]).numbers["kid_effnet-lite0"]
        assert last[f"metrics/{way}/kid_effnet-lite0"] == pytest.approx(oracle, rel=1e-6)
    assert f"{KID}: last {found[16]:.5g}, best {found[best]:.5g} after {best} images" in capfd.readouterr().out
    card = json.loads((run / "log" / "cards" / "000000016_AtoB.json").read_text())
    assert card["numbers"]["kid_effnet-lite0"] == found[16]


def test_a_scored_run_that_was_stopped_goes_on_to_the_same_weights_and_scores(options: dict):
    options = merged(options, **SCORED)
    whole = train({**options, "name": "whole"})
    train(merged({**options, "name": "parts"}, training={"max_images": 6}))
    parts = train({**options, "name": "parts"})
    assert same_weights(whole, parts) and scores(whole) == scores(parts)


def test_a_state_that_was_scored_is_not_scored_again_when_it_is_gone_on_from(options: dict):
    options = merged(options, **SCORED)
    train(merged(options, training={"max_images": 8}))
    run = train(options)
    lines = [line["images"] for line in read_metrics(run / "log" / "metrics.jsonl") if KID in line]
    assert lines == [4, 8, 12, 16]


def test_two_processes_score_together_what_one_scores_alone(options: dict):
    options = merged(options, **SCORED)
    done = run_training(merged({**options, "name": "two"}, training={"max_images": 8}), 2)
    assert done.returncode == 0, done.stderr
    one = train(merged({**options, "name": "one"}, training={"batch_size": 2, "max_images": 8}))
    two_scores, one_scores = scores(one.with_name("two")), scores(one)
    assert list(two_scores) == list(one_scores)
    assert all(torch.isfinite(torch.tensor(value)) for value in two_scores.values())
    assert two_scores[8] == pytest.approx(one_scores[8], rel=0.05)  # Adam: the weights differ by rounding


def test_features_are_float32_whatever_the_generators_precision(options: dict):
    """Under bf16 autocast the extractor's numbers for one and the same picture would differ."""
    options = merged(options, **SCORED, speed={"precision": "bf16"})
    run = train(merged(options, training={"max_images": 4}))
    translate_split(run)  # float32, so that pictures differ by bf16's rounding only
    oracle = evaluate(run / "test" / "AtoB", Path(options["data"]["root"]) / "testB", efficientnet_lite0(), ["kid"])
    assert scores(run)[4] == pytest.approx(oracle.numbers["kid_effnet-lite0"], rel=5e-3)


@pytest.mark.filterwarnings("ignore:.* has random weights")
def test_generators_of_content_and_style_are_scored_in_the_styles_of_their_files(options: dict):
    styled = {"algorithm": {"name": "adain", "weights": "random"}, "generator": {"name": "adain", "layer": "relu2_1"}}
    options = {key: value for key, value in merged(options, **SCORED).items() if key != "discriminator"} | styled
    run = train(merged(options, training={"max_images": 4}))
    translate_split(run, paired=False)
    oracle = evaluate(run / "test" / "AtoB", Path(options["data"]["root"]) / "testB", efficientnet_lite0(), ["kid"])
    assert scores(run)[4] == pytest.approx(oracle.numbers["kid_effnet-lite0"], rel=1e-3)


def test_an_unknown_score_to_keep_by_is_named(options: dict):
    with pytest.raises(ConfigError, match=r"evaluation\.best_by.*metrics/AtoB/kid_effnet-lite0"):
        train(merged(merged(options, **SCORED), evaluation={"best_by": "fid"}))
    assert not (Path(options["results"]) / "tiny").exists()  # at once, not when the first is due


@pytest.mark.parametrize("reference", ["test", "train"])
def test_a_damaged_test_picture_is_named_at_the_start_or_not_scored_as_configured(options: dict, reference: str):
    options = merged(merged(options, **SCORED), evaluation={"reference": reference}, logging={"samples": 0})
    (Path(options["data"]["root"]) / "testA" / "01.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"01\.png.*data\.corrupt=skip"):
        train(options)
    run = train(merged(options, data={"corrupt": "skip"}))
    for way in ("AtoB", "BtoA"):
        card = json.loads((run / "log" / "cards" / f"000000016_{way}.json").read_text())
        of_a = card["fake" if way == "AtoB" else "real"]["n"]
        assert of_a == (2 if way == "AtoB" or reference == "test" else 5)


FEW = [
    ("precision_recall", "test", 4),
    ("density_coverage", "train", 6),
    ("fid_infinity", "train", 6400),  # five a feature, and EfficientNet-Lite0 has 1,280
]


@pytest.mark.parametrize("metric, reference, least", FEW)
def test_too_few_pictures_to_score_are_told_at_the_start(metric: str, reference: str, least: int, options: dict):
    options = merged(merged(options, **SCORED), evaluation={"metrics": [metric], "reference": reference})
    with pytest.raises(EvaluationError, match=f"at least {least} images"):
        train(options)
    assert not (Path(options["results"]) / "tiny").exists()


def test_test_pictures_of_one_domain_need_training_pictures_to_be_compared_with(options: dict, pictures: Path):
    """Against the other domain's test pictures there would be nothing to score, and no word about it."""
    folders = {
        "A": {"train": str(pictures / "trainA"), "test": str(pictures / "testA")},
        "B": {"train": str(pictures / "trainB")},
    }
    options = merged(merged(options, **SCORED), data=folders)
    with pytest.raises(ConfigError, match=r"no direction to score.*evaluation\.reference"):
        train(options)
    assert list(scores(train(merged(options, evaluation={"reference": "train"})))) == [4, 8, 12, 16]


def test_a_run_that_is_stopped_in_its_last_update_says_that_its_score_is_missing_and_catches_up(
    options: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    options, asked, reason = merged(options, **SCORED), count(1), Stopper.reason

    def told_at_the_last(stopper: Stopper) -> str | None:
        if next(asked) == 16:
            stopper.received = signal.SIGUSR1
        return reason(stopper)

    monkeypatch.setattr(Stopper, "reason", told_at_the_last)
    with pytest.raises(SystemExit) as stopped:
        train(options)
    assert stopped.value.code == 128 + signal.SIGUSR1 and "before they were scored" in capfd.readouterr().out
    assert list(scores(train(options))) == [4, 8, 12, 16]


def test_a_disk_that_is_full_for_cards_and_scores_does_not_end_the_run(
    options: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    monkeypatch.setattr("cyclegan.training.chronicle.save_card", full_disk)
    monkeypatch.setattr("cyclegan.training.saving.write_scores", full_disk)
    run = train(merged(options, **SCORED))
    assert list(scores(run)) == [4, 8, 12, 16] and "not written" in capfd.readouterr().out


def test_going_back_leaves_no_cards_of_later_weights(options: dict):
    options = merged(merged(options, **SCORED), saving={"keep_last": 9, "every_epochs": 1})
    run = train(options)
    train(merged(options, training={"max_images": 9}), resume=str(run / "state" / "000000008"))
    assert sorted({card.name[:9] for card in (run / "log" / "cards").iterdir()}) == ["000000004", "000000008"]
