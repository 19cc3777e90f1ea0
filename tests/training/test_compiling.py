from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo import config, utils

from cyclegan.training.compiling import compile_training
from cyclegan.training.loop import train
from tests.conftest import merged

COMPILE = torch.compile


@pytest.fixture
def graphs(monkeypatch):
    """Counts what is compiled, but generates no code for it."""
    monkeypatch.setattr("torch.compile", partial(COMPILE, backend="eager"))
    torch._dynamo.reset()
    utils.counters.clear()
    with config.patch(fail_on_recompile_limit_hit=True):
        yield lambda: utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_no_call_of_a_network_is_left_plain(precision: str, options: dict, graphs):
    """PyTorch compiles a function eight times at most: networks of a kind share theirs, sheets are not compiled."""
    speed = {"compile": True, "precision": precision, "channels_last": True}
    train(merged(options, speed=speed, algorithm={"name": "cyclegan", "pool": 2}))
    assert graphs() == 4  # generators with the identity's pictures and back, critics for the generators and for losses


def test_pictures_of_other_sizes_are_translated_without_compiling(graphs):
    network = nn.Conv2d(3, 3, 3)
    compile_training(network, None, one_size=True)
    network(torch.rand(1, 3, 8, 8))
    assert graphs() == 1
    network.eval()
    for side in range(9, 20):
        network(torch.rand(1, 3, side, side))
    assert graphs() == 1
