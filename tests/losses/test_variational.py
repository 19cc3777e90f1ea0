from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cyclegan.losses.variational import disentanglement, divergence


def test_the_divergence_is_that_of_normal_distributions():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence(mean, log_variance), expected)
    assert divergence(torch.zeros(1, 5), torch.zeros(1, 5)).item() == 0


def test_disentanglement_by_hand():
    style, first = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert disentanglement(first, torch.tensor([[1.0, 3.0]]), style).item() == 9 - 1
    assert disentanglement(first, torch.tensor([[1.0, 0.5]]), style).item() == 0  # the contents are closer already
    second = torch.tensor([[1.0, 3.0], [1.0, 0.5]])
    both = disentanglement(first.expand(2, 2), second, style.expand(2, 2))
    assert both.tolist() == [8, 0]


def test_disentanglement_pulls_the_contents_together_and_the_first_from_its_style():
    first, second, style = (torch.tensor([v], requires_grad=True) for v in ([1.0, 0.0], [1.0, 3.0], [0.0, 0.0]))
    disentanglement(first, second, style).sum().backward()
    assert second.grad.tolist() == [[0, 6]]
    assert first.grad.tolist() == [[pytest.approx(-2), -6]] and style.grad.tolist() == [[2, 0]]
