"""A step never waits for the GPU: what it computes is not looked at, and nothing small comes from the host.

Tried on the meta device: it computes nothing, so to look at a value is an error there.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cyclegan.algorithms import algorithms
from cyclegan.config import Config, load_config
from cyclegan.training.launch import new_accelerator
from cyclegan.training.trainer import Trainer
from tests.algorithms.test_algorithms import NETWORKS, suited

META = torch.device("meta")
ADAPTIVE = {"policy": ["colour", "translation", "cutout"], "target": 0.6}

pytestmark = pytest.mark.filterwarnings("ignore:.* has random weights")


class Travels(TorchDispatchMode):
    """Notes what goes from one device to another."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, inputs=(), options=None):
        output = function(*inputs, **(options or {}))
        places = {x.device.type for x in tree_leaves((inputs, options, output)) if isinstance(x, torch.Tensor)}
        if "copy" in str(function) and len(places) > 1:
            self.seen.append(f"{function}: {places}")
        return output


UPDATES = pytest.mark.parametrize(
    "changes",
    [
        *({"algorithm": {"name": name}} for name in sorted(algorithms())),
        {"algorithm": {"r1": 1}},
        {"algorithm": {"adversarial": "wgan-gp", "clamp": 0.1}},
        {"algorithm": {"name": "cut", "flip": True, "reconstruction": 1, "negatives": "batch", "r1": 1}},
        {"algorithm": {"name": "distancegan", "between": "images"}},
        {"terms": {"ssim": 1, "edges": 1, "tv": 1}, "data": {"B": {"channels": 1}}, "algorithm": {"identity": 0}},
        {"diffaugment": ADAPTIVE, "discriminator": {**NETWORKS["discriminator"], "spectral": True}},
        {"speed": {"channels_last": True, "checkpointing": True}},
    ],
    ids=str,
)


def config_of(changes: dict) -> Config:
    name = changes.get("algorithm", {}).get("name", "cyclegan")
    sections = {**NETWORKS, **changes, "algorithm": {"name": name, **changes.get("algorithm", {})}}
    training = {"ema": 0.9, "clip": 1.0, "batch_size": 2}
    return load_config(suited(name, {"name": "x", **sections, "training": training}))


def second_update(trainer: Trainer, watched: AbstractContextManager) -> dict[str, torch.Tensor]:
    """Watched; what was restored may come at the first one."""
    channels = {domain: getattr(trainer.config.data, domain).channels for domain in ("A", "B")}
    for watch in (Travels(), watched):
        device = trainer.accelerator.device
        batch = {domain: torch.empty(2, count, 32, 32, device=device) for domain, count in channels.items()}
        with watch:
            losses = trainer.update(batch, 1.0)
    return losses


@UPDATES
def test_an_update_does_not_wait_for_the_gpu(changes: dict, monkeypatch):
    config, travels = config_of(changes), Travels()
    monkeypatch.setattr("torch.autocast", lambda *_, **__: nullcontext())  # does not know the meta device
    monkeypatch.setattr("torch.Tensor.new_tensor", lambda *_, **__: pytest.fail("a tensor made of numbers of the host"))
    with new_accelerator(config) as accelerator:
        for state in (AcceleratorState, PartialState):
            monkeypatch.setitem(state._shared_state, "device", META)
        assert second_update(Trainer(config, accelerator), travels)
    assert travels.seen == []


@contextmanager
def waiting_is_an_error():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@UPDATES
def test_nor_does_it_on_a_gpu(changes: dict):
    with new_accelerator(config_of(changes)) as accelerator:
        assert second_update(Trainer(config_of(changes), accelerator), waiting_is_an_error())
