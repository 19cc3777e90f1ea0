from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cyclegan.algorithms.cyclegan import CycleGAN
from cyclegan.config import ConfigError
from cyclegan.data.images import ImageError
from cyclegan.inference.checkpoints.generator_file import load_generator
from cyclegan.networks import diffaugment
from cyclegan.training import checkpoint
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import Diverged, train
from tests.conftest import merged, write_pictures
from tests.whole import whole


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return {f"{d}.{k}": v for d in ("AtoB", "BtoA") for k, v in load_file(run / f"{d}.safetensors").items()}


def same_weights(one: Path, two: Path) -> bool:
    a, b = weights_of(one), weights_of(two)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_leaves_everything_that_it_promises(options: dict):
    run = train(merged(options, logging={"trackers": ["tensorboard"]}))
    assert (run / "config.yaml").is_file() and list((run / "log").glob("events.out.tfevents.*"))
    assert [path.stem for path in sorted((run / "samples").iterdir())] == ["000000000", "000000008", "000000016"]
    assert [state.name for state in checkpoint.all_states(run / "state")] == ["000000016"]
    assert load_generator(run, "AtoB").about["images"] == 16


def test_curves_have_every_term_and_what_time_went_into(options: dict):
    lines = read_metrics(train(options) / "log" / "metrics.jsonl")
    assert [line["images"] for line in lines] == list(range(2, 18, 2))
    terms = [f"generators/{t}_{d}" for t in ("adversarial", "cycle", "identity") for d in "AB"]
    terms += ["generators", "discriminators", "discriminators/A", "discriminators/B"]
    terms += ["lr/generators", "lr/discriminators"]
    terms += ["speed/images_per_second", "speed/waiting_for_data", "speed/memory_mib"]
    for line in lines:
        assert set(terms) <= set(line)
        assert line["generators"] == pytest.approx(sum(line[t] for t in terms[:6]), rel=1e-5)
        assert 0 <= line["speed/waiting_for_data"] <= 1


def test_learning_rates_follow_the_linear_schedule(options: dict):
    lines = read_metrics(train(options) / "log" / "metrics.jsonl")
    assert [line["lr/generators"] / 2e-4 for line in lines] == pytest.approx([1, 1, 1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_every_n_images_holds_for_any_batch_size(batch_size: int, options: dict):
    training = {"batch_size": batch_size, "epochs": 6, "decay_epochs": 0, "batches_per_epoch": 2, "max_images": 12}
    run = train(merged(options, training=training, logging={"log_every": 4, "sample_every": 6}))
    lines = [line["images"] for line in read_metrics(run / "log" / "metrics.jsonl")]
    expected = {1: [4, 8, 12], 3: [6, 9, 12], 4: [4, 8, 12]}[batch_size]  # at 4, 8 and 12, rounded up to a batch
    assert lines == expected


def test_a_sheet_has_real_fake_back_and_identity_for_both_domains(options: dict):
    run = train(options)
    sheet = Image.open(run / "samples" / "000000016.png")
    cell = 128  # 32 pixels, enlarged four times
    assert sheet.size == (8 * (cell + 4) + 4, 2 * (cell + 4) + 24)
    first = Image.open(run / "samples" / "000000000.png").crop((4, 20, 132, 148))
    assert sheet.crop((4, 20, 132, 148)).tobytes() == first.tobytes()  # the same real picture every time


# ---- resuming


VARIATIONS = {
    "plain": {},
    "ema": {"training": {"ema": 0.9}},
    "accumulation": {"training": {"accumulate": 2}},
    "two workers": {"data": {"workers": 2}},
    "batches": {"training": {"batch_size": 2}},
    "small pool": {"algorithm": {"name": "cyclegan", "pool": 2}},
    "dropout": {"generator": {"name": "resnet", "width": 4, "blocks": 1, "dropout": 0.5}},
    "spectral": {"discriminator": {"name": "patch", "width": 4, "layers": 2, "spectral": True}},
    "batch norm": {"generator": {"name": "resnet", "width": 4, "blocks": 1, "norm": "batch"}},
    "plateau": {"schedule": {"name": "plateau", "patience": 0}},
    "bf16": {"speed": {"precision": "bf16"}},
    "clip": {"training": {"clip": 0.1}},
    "wgan-gp": {"algorithm": {"name": "cyclegan", "adversarial": "wgan-gp", "discriminator_updates": 2}},
    "lazy r1": {"algorithm": {"name": "cyclegan", "r1": 1, "r1_every": 4}},
    "diffaugment": {
        "diffaugment": {"policy": ["colour", "translation", "cutout"], "p": 0.5, "target": 0.6, "ramp_images": 16}
    },
    "deterministic": {"deterministic": True},
    "augmentation": {"data": {"A": {"augment": [{"name": "GaussNoise", "p": 1.0}]}}},
}


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("stop", [6, 8])  # in mid-epoch, and between two epochs
def test_a_stopped_run_goes_on_where_it_stopped(
    variation: str, stop: int, options: dict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(diffaugment, "EVERY", 3)  # so that an adaptive strength moves within the run
    options = merged(options, **VARIATIONS[variation])
    whole = train({**options, "name": "whole"})
    train(merged({**options, "name": "parts"}, training={"max_images": stop}))
    parts = train({**options, "name": "parts"})
    assert same_weights(whole, parts)
    kept = [k for k in read_metrics(whole / "log" / "metrics.jsonl")[0] if not k.startswith("speed")]
    curves = [
        [[line.get(k) for k in kept] for line in read_metrics(r / "log" / "metrics.jsonl")] for r in (whole, parts)
    ]
    assert curves[0] == curves[1]
    sheets = [(r / "samples" / "000000016.png").read_bytes() for r in (whole, parts)]
    assert sheets[0] == sheets[1]


def test_the_strength_of_adaptive_augmentation_is_a_curve(options: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diffaugment, "EVERY", 2)
    section = {"policy": ["cutout"], "p": 0.5, "target": 0.0, "ramp_images": 160}
    run = train(merged(options, diffaugment=section))
    strengths = [line["diffaugment/D_A"] for line in read_metrics(run / "log" / "metrics.jsonl")]
    for before, after in pairwise(strengths):
        assert abs(after - before) == pytest.approx(2 / 160, rel=1e-4)


def test_the_newest_intact_state_is_taken(options: dict, capfd: pytest.CaptureFixture):
    saving = {"every_images": 4, "keep_last": 3}
    whole = train(merged({**options, "name": "whole"}, saving=saving))
    run = train(merged({**options, "name": "hurt"}, saving=saving, training={"max_images": 12}))
    states = checkpoint.all_states(run / "state")
    assert [state.name for state in states] == ["000000004", "000000008", "000000012"]
    with (states[-1] / "shared.pt").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    (states[-2] / "manifest.json").unlink()
    train(merged({**options, "name": "hurt"}, saving=saving))
    said = capfd.readouterr()
    said = said.out + said.err
    assert "000000012 is damaged (shared.pt" in said and "000000008 is damaged" in said
    assert "resumed from" in said and "000000004: 4 images" in said
    assert same_weights(whole, run)


@pytest.mark.parametrize("manifest", ["", "[]"])
def test_only_damaged_states_are_no_reason_to_start_over(manifest: str, options: dict):
    run = train(options)
    for state in checkpoint.all_states(run / "state"):
        (state / "rank0.pt").unlink()
        (state / "manifest.json").write_text(manifest or (state / "manifest.json").read_text())
    with pytest.raises(checkpoint.CheckpointError, match="no intact training state"):
        train(options)


def test_a_fresh_start_sets_the_earlier_run_aside(options: dict):
    run = train(options)
    before = weights_of(run)
    train(merged(options, seed=5), resume="none")
    aside = run.with_name("tiny.1")
    assert all(torch.equal(before[k], v) for k, v in weights_of(aside).items())
    assert not same_weights(run, aside)


@pytest.mark.parametrize("inside", ["", "state", "state/000000008"])
def test_another_run_can_be_gone_on_from(inside: str, options: dict):
    first = train(merged(options, training={"max_images": 8}))
    train({**options, "name": "whole"})
    second = train({**options, "name": "branch"}, resume=str(first / inside))
    assert same_weights(second, first.with_name("whole"))
    with pytest.raises(checkpoint.CheckpointError, match="nowhere"):
        train(options, resume="nowhere")


def test_going_on_from_another_run_sets_own_later_states_aside(options: dict):
    train(merged({**options, "name": "other"}, training={"max_images": 4}))
    run = train(merged(options, saving={"every_images": 2}))
    other = str(run.with_name("other"))
    train(merged(options, saving={"every_images": 2}, training={"max_images": 8}), resume=other)
    assert [state.name for state in checkpoint.all_states(run / "state")] == ["000000006", "000000008"]


def test_a_command_that_is_repeated_by_a_scheduler_goes_on(options: dict, monkeypatch: pytest.MonkeyPatch):
    run = train(merged(options, training={"max_images": 8}))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train(options, resume="none")
    assert not run.with_name("tiny.1").exists()
    assert [line["images"] for line in read_metrics(run / "log" / "metrics.jsonl")][-1] == 16


def test_a_finished_run_has_nothing_left_to_do(options: dict):
    run = train(options)
    before = weights_of(run)
    train(options)
    assert all(torch.equal(before[k], v) for k, v in weights_of(run).items())


@pytest.mark.parametrize("resume", ["auto", "none", "finished"])
def test_a_run_that_would_leave_nothing_is_refused(resume: str, options: dict):
    """Before anything is written: without a state and without generators, all that follows would fail."""
    if resume == "finished":
        options, resume = {**options, "name": "branch"}, str(train(options))
    else:
        options = merged(options, training={"epochs": 0, "decay_epochs": 0})
    with pytest.raises(ConfigError, match=r"nothing to train.*training\.epochs"):
        train(options, resume=resume)
    assert not (Path(options["results"]) / options["name"]).exists()


def test_more_epochs_go_on(options: dict):
    run = train(options)
    train(merged(options, training={"decay_epochs": 4}))
    assert load_generator(run, "AtoB").about["images"] == 24


def test_going_back_leaves_the_later_states_alone_and_goes_on_from_the_new_ones(options: dict):
    saving = {"every_images": 4, "keep_last": 9}
    run = train(merged(options, saving=saving))
    whole = weights_of(run)
    train(merged(options, saving=saving, training={"max_images": 10}), resume=str(run / "state" / "000000008"))
    names = sorted(state.name for state in (run / "state").iterdir())
    assert names == ["000000004", "000000008", "000000010", "000000012.abandoned", "000000016.abandoned"]
    sheets = sorted(sheet.stem for sheet in (run / "samples").iterdir())
    assert sheets == ["000000000", "000000008", "000000010"]  # none of weights that it has left
    train(merged(options, saving=saving))
    assert all(torch.equal(whole[k], v) for k, v in weights_of(run).items())


@pytest.mark.parametrize("batches", [2, 8])
def test_another_length_of_epochs_still_ends_after_the_configured_ones(batches: int, options: dict):
    train(merged(options, training={"max_images": 12}))  # three epochs of four
    run = train(merged(options, training={"batches_per_epoch": batches}, data={"epoch_size": 8}))
    assert load_generator(run, "AtoB").about["images"] == 12 + batches
    rates = [line["lr/generators"] for line in read_metrics(run / "log" / "metrics.jsonl")]
    assert min(rates) > 0 and rates[-1] == pytest.approx(2e-4 / 3)


def test_what_the_optimizer_is_told_anew_counts(options: dict):
    run = train(merged(options, training={"max_images": 4}))
    train(merged(options, training={"max_images": 8}, optimizer={"betas": [0.9, 0.99]}))
    state = torch.load(run / "state" / "000000008" / "shared.pt", weights_only=True)["trainer"]["optimizers"]
    assert state["generators"]["param_groups"][0]["betas"] == (0.9, 0.99)
    with pytest.raises(checkpoint.CheckpointError, match=r"optimizer\.name: adam -> sgd"):
        train(merged(options, optimizer={"name": "sgd"}))


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_momentum_may_be_switched_on_when_a_run_goes_on(name: str, options: dict):
    """Its first update after that is the one without; then they part."""
    options = merged(options, optimizer={"name": name, "lr": 1e-4}, saving={"every_images": 1, "keep_last": 9})
    first = train(merged(options, training={"max_images": 4}))
    found = {}
    for momentum in (0.0, 0.9):
        changed = merged(options, training={"max_images": 6}, optimizer={"momentum": momentum})
        run = train({**changed, "name": f"with{momentum}"}, resume=str(first))
        states = [run / "state" / f"{images:09d}" / "shared.pt" for images in (5, 6)]
        found[momentum] = [torch.load(state, weights_only=True)["trainer"]["networks"] for state in states]
    one, two = zip(found[0.0], found[0.9], strict=True)
    weights = [[s["G_AB"]["model.1.weight"] for s in pair] for pair in (one, two)]
    assert torch.allclose(*weights[0], rtol=1e-5) and not torch.allclose(*weights[1], rtol=1e-5)


# ---- what goes wrong


def test_losses_that_are_not_finite_stop_the_run_and_name_the_last_good_state(
    options: dict, monkeypatch: pytest.MonkeyPatch
):
    calls, plain = [], CycleGAN.losses

    def failing(self, batch):
        calls.append(0)
        for name, terms in plain(self, batch):
            yield name, {term: value * (float("nan") if len(calls) > 6 else 1) for term, value in whole(terms).items()}

    monkeypatch.setattr(CycleGAN, "losses", failing)
    with pytest.raises(Diverged, match=r"not finite.*000000004"):
        train(merged(options, saving={"every_images": 4}))
    for path in (Path(options["results"]) / "tiny").glob("*.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values())


def test_a_damaged_picture_is_fatal_or_skipped_as_configured(
    options: dict, pictures: Path, capfd: pytest.CaptureFixture
):
    (pictures / "trainA" / "01.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"01\.png.*data\.corrupt=skip"):
        train(options)
    train(merged({**options, "name": "skipping"}, data={"corrupt": "skip"}))
    said = capfd.readouterr()
    assert (said.out + said.err).count("01.png") == 1


def test_a_picture_that_ends_a_run_does_not_take_what_was_learned_with_it(options: dict, pictures: Path):
    options = merged(options, data={"pairing": "ordered", "shuffle": False})
    whole = train({**merged(options, training={"max_images": 8}), "name": "whole"})
    good = (pictures / "trainA" / "03.png").read_bytes()
    (pictures / "trainA" / "03.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"03\.png"):
        train(options)
    states = Path(options["results"]) / "tiny" / "state"
    assert [state.name for state in checkpoint.all_states(states)] == ["000000003"]
    (pictures / "trainA" / "03.png").write_bytes(good)
    assert same_weights(whole, train(merged(options, training={"max_images": 8})))


def test_pictures_that_cannot_be_stacked_are_a_problem_of_data_resize(options: dict, pictures: Path):
    write_pictures(pictures / "trainA" / "wide", 5, side=64)
    with pytest.raises(ConfigError, match=r"data\.resize.*batch_size=1"):
        train(merged(options, data={"resize": "none"}, training={"batch_size": 4}))


@pytest.mark.parametrize(("networks", "least"), [({}, 12), ({"discriminator": {"name": "pixel", "width": 4}}, 8)])
def test_a_picture_too_small_for_the_networks_is_named_at_the_start(
    networks: dict, least: int, options: dict, pictures: Path
):
    options = merged({**options, **networks}, data={"resize": "none"}, training={"max_images": 8})
    write_pictures(pictures / "trainB" / "least", 1, side=least)
    train({**options, "name": "least"})
    Image.new("RGB", (40, least - 3)).save(pictures / "trainB" / "small.png")
    with pytest.raises(ConfigError, match=rf"small\.png is 40x{least - 3} and these networks take {least} pixels"):
        train(options)


@pytest.mark.parametrize("resize", ["none", "scale_width"])
def test_pictures_of_all_sizes_train_one_by_one(resize: str, options: dict, pictures: Path):
    write_pictures(pictures / "trainA" / "wide", 5, side=61)
    train(merged(options, data={"resize": resize, "load_size": 38}))


def test_a_crop_that_the_generator_does_not_take_is_named(options: dict):
    with pytest.raises(ConfigError, match=r"data\.crop_size: 30.*multiples of 4"):
        train(merged(options, data={"crop_size": 30}))


def test_several_updates_do_not_go_with_accumulation(options: dict):
    with pytest.raises(ConfigError, match=r"training\.accumulate.*discriminators"):
        train(
            merged(
                options,
                algorithm={"name": "cyclegan", "discriminator_updates": 2},
                training={"accumulate": 2},
            )
        )


def test_unknown_optimizer_groups_and_watched_losses_are_named(options: dict):
    with pytest.raises(ConfigError, match=r"optimizer\.groups.*critics.*discriminators"):
        train(merged(options, optimizer={"groups": {"critics": {"lr": 1}}}))
    with pytest.raises(ConfigError, match=r"schedule\.watch.*cycles.*generators/cycle_A"):
        train(merged(options, schedule={"name": "plateau", "watch": "cycles"}))


def test_learning_rates_can_differ(options: dict):
    run = train(merged(options, optimizer={"groups": {"discriminators": {"lr": 4e-4}}}))
    line = read_metrics(run / "log" / "metrics.jsonl")[0]
    assert (line["lr/generators"], line["lr/discriminators"]) == (2e-4, 4e-4)


# ---- budgets


def test_max_images_and_max_steps_end_the_run(options: dict):
    assert load_generator(train(merged(options, training={"max_images": 6})), "AtoB").about["images"] == 6
    run = train(merged({**options, "name": "steps"}, training={"max_steps": 3, "accumulate": 2}))
    assert load_generator(run, "AtoB").about["images"] == 6


def test_max_time_saves_and_the_next_session_goes_on(options: dict):
    whole = train({**options, "name": "whole"})
    run = Path(options["results"]) / "tiny"
    sessions = 0
    while not (run / "state" / "000000016").exists():
        sessions += 1
        try:
            train(merged(options, training={"max_time": 1e-6}))
        except SystemExit as stop:
            assert stop.code == 0
    assert sessions == 16
    assert same_weights(whole, run)


def test_generator_files_tell_how_they_were_made(options: dict):
    run = train(merged(options, data={"B": {"background": "black"}}, training={"ema": 0.9}))
    about = load_generator(run, "AtoB").about
    assert about["direction"] == "AtoB" and about["architecture"]["blocks"] == 1
    assert about["output"] == {"channels": 3, "background": "black"} and about["ema"] == 0.9
    assert json.dumps(about["config"]["data"]["crop_size"]) == "32"


# ---- starting from other weights


def test_a_run_with_masks_trains_and_resumes(options: dict, tmp_path: Path):
    write_pictures(tmp_path / "masks", 5, seed=9)
    options = merged(options)
    options["data"] = {**options["data"], "A": {"mask": str(tmp_path / "masks")}}
    whole = train({**options, "name": "whole"})
    train(merged({**options, "name": "parts"}, training={"max_images": 6}))
    assert same_weights(whole, train({**options, "name": "parts"}))


def test_pictures_of_several_sizes_are_refused_where_they_have_to_be_alike(options: dict):
    options = merged(options, data={"resize": "none"})
    write_pictures(Path(options["data"]["root"]) / "trainB", 4, side=52)
    train(merged({**options, "name": "free"}, training={"max_images": 1}))
    for algorithm in ({"name": "cut", "width": 4}, {"name": "cyclegan", "adversarial": "wgan-gp"}):
        with pytest.raises(ConfigError, match=r"data\.resize: .*of one size, found 40x40 and 52x52"):
            train({**options, "algorithm": algorithm})


def test_random_states_are_those_of_the_gpu_that_trains(monkeypatch):
    state, given = torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)  # another number than when it was saved
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda: state)
    monkeypatch.setattr("torch.cuda.set_rng_state", given.append)
    saved = checkpoint.random_states()
    checkpoint.restore_random_states(saved)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    checkpoint.restore_random_states({**saved, "cuda": [state[:8], state[8:]]})  # of an earlier version: of all GPUs
    assert given == [state, given[1]] and torch.equal(given[1], state[8:])


def test_damaged_training_pictures_are_not_shown_either_where_they_are_skipped(options: dict):
    root = Path(options["data"]["root"])
    for name in ("testA", "testB"):
        (root / name).rename(root / f"no {name}")
    (root / "trainA" / "00.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"00\.png"):
        train(options)
    run = train(merged({**options, "name": "skips"}, data={"corrupt": "skip"}, training={"max_images": 2}))
    assert (run / "samples" / "000000000.png").exists()
