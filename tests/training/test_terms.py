from __future__ import annotations

from pathlib import Path

import lpips
import pytest
import torch
from torchvision.models import alexnet

from cyclegan.algorithms import algorithms
from cyclegan.config import ConfigError, load_config
from cyclegan.losses.structure import ssim, total_variation
from cyclegan.networks.backbones import new_backbone
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import new_accelerator, train
from cyclegan.training.trainer import Trainer
from tests.algorithms.test_algorithms import suited
from tests.conftest import merged


def pictures(channels: int = 3, seed: int = 0, side: int = 32) -> torch.Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def losses_of(options: dict, batch: dict) -> dict[str, torch.Tensor]:
    config = load_config(options)
    with new_accelerator(config) as accelerator:
        return Trainer(config, accelerator).update(batch, rate=1.0)


def test_terms_compare_translations_with_their_pictures(options: dict):
    batch = {"A": pictures(), "B": pictures(seed=1)}
    with_terms = merged(options, terms={"ssim": 2.0, "edges": 0.5, "tv": 0.1})
    config = load_config(with_terms)
    with new_accelerator(config) as accelerator:
        trainer = Trainer(config, accelerator)
        with torch.no_grad():
            fake_b = trainer.algorithm.G_AB(batch["A"])
        losses = trainer.update(batch, rate=1.0)
    assert losses["generators/ssim_B"].item() == pytest.approx(
        2 * (1 - ssim(batch["A"], fake_b).mean().item()), rel=1e-4
    )
    assert losses["generators/tv_B"].item() == pytest.approx(0.1 * total_variation(fake_b).mean().item(), rel=1e-4)
    plain = losses_of(options, batch)
    extra = {name for name in losses if name not in plain}
    assert extra == {f"generators/{term}_{domain}" for term in ("ssim", "edges", "tv") for domain in "AB"}
    added = sum(losses[name].item() for name in extra)
    assert losses["generators"].item() == pytest.approx(plain["generators"].item() + added, rel=1e-4)


@pytest.mark.parametrize("name", sorted(algorithms()))
def test_every_algorithm_tells_its_translations(name: str, options: dict):
    options = suited(name, merged(options, terms={"tv": 1.0}))
    losses = losses_of(options, {"A": pictures(side=64), "B": pictures(seed=1, side=64)})
    assert any("/tv_" in key for key in losses)


def test_an_algorithm_that_does_not_tell_is_refused(options: dict, monkeypatch: pytest.MonkeyPatch):
    cyclegan = algorithms()["cyclegan"]
    real = cyclegan.losses
    monkeypatch.setattr(cyclegan, "losses", lambda self, batch: real(self, dict(batch)))
    with pytest.raises(ConfigError, match="terms: cyclegan does not tell its translations"):
        losses_of(merged(options, terms={"tv": 1}), {"A": pictures(), "B": pictures()})


def test_one_sided_training_has_terms_for_its_side(options: dict):
    options = merged(options, algorithm={"name": "cyclegan", "sides": "A"}, terms={"tv": 1})
    losses = losses_of(options, {"A": pictures(), "B": pictures()})
    assert "generators/tv_B" in losses and "generators/tv_A" not in losses


def test_domains_of_different_channels_are_compared_by_luminance(options: dict):
    data = {"data": {**options["data"], "A": {"channels": 1}}}
    options = merged({**options, **data}, algorithm={"name": "cyclegan", "identity": 0}, terms={"ssim": 1, "edges": 1})
    losses = losses_of(options, {"A": pictures(1), "B": pictures(3)})
    assert losses["generators/ssim_A"].isfinite()


def test_vgg_compares_features_of_a_file(options: dict, tmp_path: Path):
    torch.manual_seed(0)
    vgg = new_backbone("vgg16", ["relu1_2"], persistent=True)
    torch.save(vgg.parts.state_dict(prefix="features."), tmp_path / "vgg.pth")
    terms = {"vgg": 3.0, "vgg_network": "vgg16", "vgg_layers": ["relu1_2"], "vgg_weights": str(tmp_path / "vgg.pth")}
    batch = {"A": pictures(), "B": pictures(seed=1)}
    config = load_config(merged(options, terms=terms))
    with new_accelerator(config) as accelerator:
        trainer = Trainer(config, accelerator)
        with torch.no_grad():
            a, b = (vgg(x)["relu1_2"] for x in (batch["A"], trainer.algorithm.G_AB(batch["A"])))
        losses = trainer.update(batch, rate=1.0)
    assert losses["generators/vgg_B"].item() == pytest.approx(3 * (a - b).abs().mean().item(), rel=1e-4)
    assert "vgg" not in " ".join(trainer.shared_state()["networks"])


def test_lpips_is_the_packages(options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    network = alexnet(weights=None)
    torch.save(network.state_dict(), tmp_path / "alex.pth")
    monkeypatch.setattr("lpips.pretrained_networks.tv.alexnet", lambda pretrained: network.eval())
    theirs = lpips.LPIPS(net="alex", verbose=False)
    monkeypatch.undo()
    config = load_config(merged(options, terms={"lpips": 2.0, "lpips_weights": str(tmp_path / "alex.pth")}))
    batch = {"A": pictures(side=64), "B": pictures(side=64)}
    with new_accelerator(config) as accelerator:
        trainer = Trainer(config, accelerator)
        with torch.no_grad():
            expected = 2 * theirs(batch["A"], trainer.algorithm.G_AB(batch["A"])).mean().item()
        losses = trainer.update(batch, rate=1.0)
    assert losses["generators/lpips_B"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"vgg": 1, "vgg_layers": []}, r"terms\.vgg_layers: none to compare; name one or more"),
        ({"vgg": 1, "vgg_layers": ["relu9_1"]}, r"terms\.vgg_layers: vgg19 has no layer 'relu9_1'"),
        ({"lpips": 1}, r"terms\.lpips_weights: name torchvision's file"),
        ({"ms_ssim": 1}, r"terms\.ms_ssim: five scales need sides of at least 176"),
    ],
)
def test_mistakes_name_their_key(terms: dict, words: str, options: dict):
    with pytest.raises(ConfigError, match=words):
        losses_of(merged(options, terms=terms), {"A": pictures(), "B": pictures()})


def test_a_run_with_terms_resumes_to_the_same_curves(options: dict):
    options = merged(options, terms={"ssim": 1.0})
    whole = train({**options, "name": "whole"})
    train(merged({**options, "name": "parts"}, training={"max_images": 6}))
    parts = train({**options, "name": "parts"})
    curves = [[line["generators/ssim_B"] for line in read_metrics(r / "log" / "metrics.jsonl")] for r in (whole, parts)]
    assert curves[0] == curves[1]
