"""A step never waits for the GPU: what it computes is not looked at, and nothing small comes from the host.

Tried on the meta device: it computes nothing, so to look at a value is an error there.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cyclegan.algorithms import algorithms
from cyclegan.config import load_config
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


@pytest.mark.parametrize(
    "changes",
    [
        *({"algorithm": {"name": name}} for name in sorted(algorithms())),
        {"algorithm": {"name": "cut", "flip": True, "reconstruction": 1, "negatives": "batch", "r1": 1}},
        {"algorithm": {"name": "distancegan", "between": "images"}},
        {"terms": {"ssim": 1, "edges": 1, "tv": 1}, "data": {"B": {"channels": 1}}, "algorithm": {"identity": 0}},
        {"diffaugment": ADAPTIVE, "discriminator": {**NETWORKS["discriminator"], "spectral": True}},
        {"speed": {"channels_last": True, "checkpointing": True}},
    ],
    ids=str,
)
def test_an_update_does_not_wait_for_the_gpu(changes: dict, monkeypatch):
    name = changes.get("algorithm", {}).get("name", "cyclegan")
    sections = {**NETWORKS, **changes, "algorithm": {"name": name, **changes.get("algorithm", {})}}
    training = {"ema": 0.9, "clip": 1.0, "batch_size": 2}
    config = load_config(suited(name, {"name": "x", **sections, "training": training}))
    monkeypatch.setattr("torch.autocast", lambda *_, **__: nullcontext())  # does not know the meta device
    monkeypatch.setattr("torch.Tensor.new_tensor", lambda *_, **__: pytest.fail("a tensor made of numbers of the host"))
    with new_accelerator(config) as accelerator:
        monkeypatch.setitem(AcceleratorState._shared_state, "device", META)
        trainer = Trainer(config, accelerator)
        travels, channels = Travels(), {domain: getattr(config.data, domain).channels for domain in ("A", "B")}
        for watched in (nullcontext(), travels):  # what was restored may come at the first update
            batch = {domain: torch.empty(2, count, 32, 32, device=META) for domain, count in channels.items()}
            with watched:
                losses = trainer.update(batch, 1.0)
        assert losses and travels.seen == []
