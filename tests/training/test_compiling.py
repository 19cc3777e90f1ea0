from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo import config, utils

from cyclegan.training.compiling import compile_training, keep_gradients
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
def test_no_call_of_a_network_is_left_plain(precision: str, options: dict, graphs, monkeypatch):
    """PyTorch compiles a function eight times at most: networks of a kind share theirs, sheets are not compiled."""
    cleared = []
    monkeypatch.setattr("torch.compiler.reset", lambda: cleared.append(graphs()))
    speed = {"compile": True, "channels_last": True, "precision": precision}
    train(merged(options, speed=speed, algorithm={"name": "cyclegan", "pool": 2}, training={"decay_epochs": 0}))
    assert graphs() == 4  # generators: with the identity's pictures, and back; critics: for both optimizers
    assert cleared == [0]  # of what other runs of the process left


def test_pictures_of_other_sizes_are_translated_without_compiling(graphs):
    network = nn.Conv2d(3, 3, 3)
    compile_training(network, None, one_size=True)
    network(torch.rand(1, 3, 8, 8))
    assert graphs() == 1
    network.eval()
    for side in range(9, 20):
        network(torch.rand(1, 3, side, side))
    assert graphs() == 1


@pytest.mark.parametrize("training", [True, False])
def test_a_copy_of_a_compiled_network_computes_with_its_own_weights(training: bool, graphs):
    network = nn.Conv2d(3, 3, 1).train(training)
    compile_training(network, None, one_size=True)
    blank = copy.deepcopy(network).requires_grad_(False)
    for weights in blank.parameters():
        weights.zero_()
    assert not blank(torch.ones(1, 3, 4, 4)).any() and network(torch.ones(1, 3, 4, 4)).any()


class Replayed(torch.autograd.Function):
    """Twice the weight; like a CUDA graph it writes its gradient to the same place each time."""

    place = torch.empty(2)

    @staticmethod
    def forward(ctx, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return torch.mul(gradient, 2, out=Replayed.place).detach()


def test_gradients_that_a_graph_writes_over_add_up():
    weight = nn.Parameter(torch.ones(2))
    keep_gradients([weight])
    for factor in (1, 10, 100):
        (factor * Replayed.apply(weight)).sum().backward()
    assert weight.grad.tolist() == [222, 222]
