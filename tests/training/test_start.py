"""Where a run's first weights come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cyclegan.config import load_config
from cyclegan.errors import UserError
from cyclegan.inference.checkpoints.convert import to_reference
from cyclegan.training.loop import train
from tests.conftest import merged
from tests.training.test_loop import weights_of


def test_a_run_can_start_from_another_runs_networks(options: dict, capfd: pytest.CaptureFixture):
    first = train(options)
    second = train(merged({**options, "name": "tuned", "init_from": str(first)}, training={"max_images": 1}))
    assert capfd.readouterr().out.count("init_from: ") == 4
    state = torch.load(second / "state" / "000000001" / "shared.pt", weights_only=True)["trainer"]["networks"]
    before = torch.load(first / "state" / "000000016" / "shared.pt", weights_only=True)["trainer"]["networks"]
    for name in ("G_AB", "G_BA", "D_A", "D_B"):
        moved = max((state[name][k] - before[name][k]).abs().max().item() for k in state[name])
        assert 0 < moved < 1e-3  # one step of Adam away


def test_a_run_can_start_from_the_references_files(options: dict, tmp_path: Path):
    first = train(options)
    to_reference(first, tmp_path / "files")
    tuned = merged({**options, "name": "tuned", "init_from": str(tmp_path / "files")}, training={"max_images": 1})
    a, b = weights_of(first), weights_of(train(tuned))
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-3


def test_nothing_that_fits_to_start_from_is_said(options: dict, tmp_path: Path):
    with pytest.raises(UserError, match="init_from"):
        train({**options, "init_from": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("source", ["both", "one-way"])
def test_a_one_way_run_starts_from_the_networks_of_its_direction(source: str, options: dict, capsys):
    cut = {"name": "cut", "direction": "BtoA", "width": 4, "patches": 4}
    plain = merged(options, training={"max_images": 2})
    first = train({**plain, "name": "first", **({"algorithm": cut} if source == "one-way" else {})})
    capsys.readouterr()
    train({**plain, "name": "tuned", "algorithm": cut, "init_from": str(first)})
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("init_from: ")]
    assert said[0].startswith("init_from: G: 16 of 16 tensors") and said[0].endswith("/first/BtoA.safetensors")
    saved = torch.load(first / "state" / "000000002" / "shared.pt", weights_only=True)["trainer"]["networks"]
    now = torch.load(first.with_name("tuned") / "state" / "000000002" / "shared.pt", weights_only=True)
    critic = saved["D"] if source == "one-way" else saved["D_A"]
    tuned = now["trainer"]["networks"]["D"]
    assert max((tuned[key] - critic[key]).abs().max().item() for key in critic) < 1e-3  # two steps of Adam away


def test_a_run_can_start_afresh_from_itself(options: dict, capsys):
    options = merged(options, training={"max_images": 2})
    run = train(options)
    train({**options, "init_from": str(run)}, resume="none")
    assert "init_from: G_AB: " in capsys.readouterr().out and run.with_name("tiny.1").is_dir()
    assert load_config(run / "config.yaml").init_from == run.with_name("tiny.1")  # to begin once more, were it killed


def test_the_largest_seed_trains(options: dict):
    train(merged({**options, "seed": 2**32 - 1}, training={"max_images": 1}))
