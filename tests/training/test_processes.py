"""N processes compute what one computes with N times the batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cyclegan.algorithms import algorithms
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from cyclegan.training.stop import Stopper
from tests.algorithms.test_algorithms import everything, suited
from tests.conftest import merged
from tests.processes import run_training, run_trainings
from tests.training.test_loop import same_weights, weights_of

# SGD, because Adam turns the rounding noise in the gradients of biases before a norm into full-size steps; double
# precision, because training is chaotic and amplifies rounding from update to update (a thousandfold in 50 here, so
# that float32 agrees to 1e-4 only); a pool that never fills, because each process has its own.
SGD = {
    "optimizer": {"name": "sgd", "lr": 1e-4},
    "speed": {"precision": "fp64"},
    "algorithm": {"name": "cyclegan", "pool": 1000, "r1": 0.5, "r1_every": 2},
    "training": {"epochs": 5, "decay_epochs": 5, "batches_per_epoch": None},
    "data": {"epoch_size": 20, "workers": 1},
}


def curves(run: Path) -> list[list[float]]:
    lines = read_metrics(run / "log" / "metrics.jsonl")
    return [[v for k, v in line.items() if not k.startswith("speed/")] for line in lines]


def one_process(options: dict, batch_size: int) -> Path:
    return train(merged({**options, "name": "one"}, training={"batch_size": batch_size}))


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_fifty_updates_of_several_processes_are_those_of_one(processes: int, options: dict):
    options = merged(options, **SGD, logging={"log_every": 20})
    options["training"]["epochs"], options["data"]["epoch_size"] = 5, 5 * processes
    options["training"]["decay_epochs"] = 5  # 10 epochs of 5 updates
    one = one_process(options, processes)
    many = merged({**options, "name": "many"}, training={"batch_size": 1})
    done = run_training(many, processes)
    assert done.returncode == 0, done.stderr
    assert f"batch 1 x {processes} processes" in done.stdout + done.stderr
    many_run = one.with_name("many")
    one_weights, many_weights = weights_of(one), weights_of(many_run)
    start = weights_of(train(merged({**options, "name": "start"}, training={"max_images": 1})))
    assert max((start[name] - value).abs().max().item() for name, value in one_weights.items()) > 1e-3  # it did move
    for name, value in one_weights.items():
        assert torch.allclose(value, many_weights[name], rtol=0, atol=1e-8), name
    checksum = [sum(v.double().abs().sum().item() for v in w.values()) for w in (one_weights, many_weights)]
    assert checksum[0] == pytest.approx(checksum[1], rel=1e-8)
    for mine, theirs in zip(curves(one), curves(many_run), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-7)  # of float32: curves are means of losses rounded to it
    rates = [[values["lr/generators"] for values in read_metrics(run / "log/metrics.jsonl")] for run in (one, many_run)]
    assert rates[0] == rates[1]


# All places are compared, for those that are drawn differ from process to process. Heads of width 8 would have places
# where no unit is active: the gradient of the direction of a zero vector is 1e12, and weights of 1e6 agree less well.
OTHERS = {
    "cut": {"algorithm": {"patches": 9999, "width": 32}, "training": {"ema": 0.9}},
    "cyclegan": {"algorithm": {"pool": 1000}},
    "dclgan": {"algorithm": {"patches": 9999, "width": 32}},
    "distancegan": {"algorithm": {"pool": 1000, "remembered": 4}},
    "gcgan": {"algorithm": {"pool": 1000}},
    "pix2pix": {"algorithm": {"direction": "both"}, "data": {"pairing": "paired"}},
}
OWN = {
    "distancegan",  # what each process has seen by itself enters its losses
    *("adain", "linear", "variational"),  # and here the style that their generators keep
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(algorithms().keys() - OWN))
def test_updates_of_two_processes_are_those_of_one(name: str, options: dict, pictures: Path):
    (pictures / "trainA" / "04.png").unlink()
    options = merged(suited(name, {**merged(options, **SGD), "algorithm": {}}), **OTHERS.get(name, {}))
    options["training"] |= {"epochs": 2, "decay_epochs": 1}
    options["data"]["epoch_size"] = 8
    one = one_process(options, 2)
    done = run_training(merged({**options, "name": "many"}, training={"batch_size": 1}), 2)
    assert done.returncode == 0, done.stderr
    start = everything(train(merged({**options, "name": "start"}, training={"max_images": 1})))
    found, expected = everything(one.with_name("many")), everything(one)
    assert max((start[key] - value).abs().max().item() for key, value in expected.items()) > 1e-5  # it did move
    for key, value in expected.items():
        assert torch.allclose(value, found[key], rtol=0, atol=1e-9), key


def whole_and_in_parts(options: dict) -> tuple[Path, Path]:
    """Two processes train to the end at once, and to 12 images from which two new ones go on."""
    whole, parts = {**options, "name": "whole"}, {**options, "name": "parts"}
    done = run_trainings([whole, merged(parts, training={"max_images": 12})], 2)
    assert done.returncode == 0, done.stderr
    done = run_training(parts, 2)
    assert done.returncode == 0 and "resumed from" in done.stdout, done.stderr
    return Path(options["results"]) / "whole", Path(options["results"]) / "parts"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(algorithms()))
def test_two_processes_with_draws_of_their_own_resume_bit_for_bit(name: str, options: dict, pictures: Path):
    (pictures / "trainA" / "04.png").unlink()
    options = merged(suited(name, merged(options, **OTHERS.get(name, {}))), training={"ema": 0.9, "accumulate": 2})
    options["algorithm"] |= {"patches": 16, "flip": True} if name == "cut" else {}
    whole, parts = map(everything, whole_and_in_parts(options))
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_two_processes_resume_to_the_same_weights_as_uninterrupted(options: dict):
    options = merged(options, algorithm={"name": "cyclegan", "pool": 2}, training={"ema": 0.9, "accumulate": 2})
    options["diffaugment"] = {"policy": ["colour", "cutout"], "p": 0.5, "target": 0.6}
    whole, parts = whole_and_in_parts(options)
    assert same_weights(whole, parts)
    state = torch.load(whole / "state" / "000000016" / "rank1.pt", weights_only=True)
    assert len(state["memory"]["past_a"]["_extra_state"]) == 2
    shared = torch.load(whole / "state" / "000000016" / "shared.pt", weights_only=True)
    assert shared["trainer"]["networks"]["D_A"]["diffaugment.signs"][1] == 16  # what both processes heard


@pytest.fixture
def met() -> Iterator[None]:
    """A process group, of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("met")
def test_processes_that_have_met_stay_together_for_the_next_run(options: dict):
    train(merged(options, training={"max_images": 2}))
    assert torch.distributed.is_initialized()
    train(merged({**options, "name": "next"}, training={"max_images": 2}))


@pytest.mark.usefixtures("met")
def test_the_group_that_a_run_stops_by_ends_with_it():
    with Stopper(SimpleNamespace(num_processes=2), None) as stopper:
        assert stopper.reason() is None
    with pytest.raises(ValueError, match="is not registered"):
        torch.distributed.get_rank(stopper.group)


def test_a_command_line_mistake_is_one_line_on_each_process(options: dict):
    done = run_training(merged(options, data={"root": "nowhere"}), 1)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("train.py: data.root: no folder nowhere")
    assert "Traceback" not in done.stderr


def test_another_number_of_processes_or_batch_goes_on_and_says_what_it_could_not_keep(options: dict):
    options = merged(options, algorithm={"name": "cyclegan", "pool": 3})
    done = run_training(merged(options, training={"max_images": 6}), 2)
    assert done.returncode == 0, done.stderr
    done = run_training(merged(options, training={"batch_size": 4}), 1)
    assert done.returncode == 0, done.stderr
    assert "saved by 2 processes, resumed by 1" in done.stdout
    assert "training.batch_size: 1 -> 4" in done.stdout and "2 pairs of this epoch are seen again" in done.stdout
    lines = read_metrics(Path(options["results"]) / "tiny" / "log" / "metrics.jsonl")
    assert [line["images"] for line in lines][:4] == [2, 4, 6, 10]
