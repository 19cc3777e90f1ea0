from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclegan.networks.ugatit import Attention, LayerInstanceNorm, UgatitDiscriminator, UgatitGenerator


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_generator_has_the_published_light_ones_parameters():
    """Counted by hand: convolutions without biases, attention, two pairs of fully connected layers."""
    encoder = 3 * 64 * 49 + 64 * 128 * 9 + 128 * 256 * 9 + 4 * 2 * 256 * 256 * 9
    attention = 2 * 256 + 512 * 256 + 256 + 4 * 256 * 256
    adaptive = 4 * 2 * (256 * 256 * 9 + 256)
    decoder = 256 * 128 * 9 + 128 * 64 * 9 + 3 * (128 + 64) + 64 * 3 * 49
    with torch.device("meta"):
        assert count(UgatitGenerator()) == encoder + attention + adaptive + decoder


def test_the_discriminator_has_the_published_ones_parameters():
    expected = 0
    for layers in (7, 5):
        widths = [3, *(64 * 2**i for i in range(layers - 1))]
        expected += sum(16 * a * b + b for a, b in pairwise(widths))
        expected += 2 * widths[-1] + 2 * widths[-1] ** 2 + widths[-1] + 16 * widths[-1]
    with torch.device("meta"):
        assert count(UgatitDiscriminator()) == expected


@pytest.mark.parametrize(("side", "maps"), [(96, (1, 10)), (256, (6, 30))])
def test_the_discriminator_judges_globally_and_locally(side: int, maps: tuple[int, int]):
    with torch.device("meta"):
        scores = UgatitDiscriminator(width=2)(torch.empty(2, 3, side, side))
    assert [tuple(s.shape) for s in scores] == [(2, 1, maps[0], maps[0]), (2, 2), (2, 1, maps[1], maps[1]), (2, 2)]


def test_the_norm_is_instance_norm_at_1_layer_norm_at_0_and_a_mixture_between():
    x = torch.randn(2, 4, 5, 6) * torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1) + 1
    gain, shift = torch.randn(2, 4), torch.randn(2, 4)
    instance, layer = F.instance_norm(x), F.layer_norm(x, x.shape[1:])
    for rho in (0.0, 0.3, 1.0):
        expected = (rho * instance + (1 - rho) * layer) * gain[:, :, None, None] + shift[:, :, None, None]
        assert torch.allclose(LayerInstanceNorm(4, rho)(x, gain, shift), expected, atol=1e-5)
    assert torch.allclose(LayerInstanceNorm(4, 0.0, affine=True)(x), layer, atol=1e-5)


def test_attention_classifies_means_and_maxima_and_weighs_channels_by_its_weights():
    torch.manual_seed(0)
    attention, x = Attention(3, nn.ReLU()), torch.randn(2, 3, 4, 5)
    out, logits = attention(x)
    mean, largest = attention.mean.weight[0], attention.largest.weight[0]
    for n in range(2):
        assert logits[n, 0].item() == pytest.approx(sum(mean[c] * x[n, c].mean() for c in range(3)).item(), abs=1e-5)
        assert logits[n, 1].item() == pytest.approx(sum(largest[c] * x[n, c].max() for c in range(3)).item(), abs=1e-5)
    weighed = torch.cat([x * mean.view(3, 1, 1), x * largest.view(3, 1, 1)], 1)
    assert torch.allclose(out, F.relu(F.conv2d(weighed, attention.mix.weight, attention.mix.bias)))


def test_a_generator_is_a_plain_function_of_pictures_unless_asked():
    generator, image = UgatitGenerator(width=4, blocks=1), torch.rand(2, 3, 30, 17)
    out = generator(image)
    assert out.shape == (2, 3, 32, 20) and out.abs().max() <= 1
    again, logits = generator(image, attention=True)
    assert torch.equal(out, again) and logits.shape == (2, 2)


def test_checkpointing_changes_neither_output_nor_gradient():
    generator, image = UgatitGenerator(width=4, blocks=2), torch.rand(1, 3, 16, 16)
    gradients = []
    for generator.checkpointing in (False, True):
        generator.zero_grad()
        generator(image).square().mean().backward()
        gradients.append([p.grad.clone() for p in generator.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_every_layer_of_the_discriminator_is_bounded():
    torch.manual_seed(0)
    discriminator = UgatitDiscriminator(width=4, global_layers=4, local_layers=3)
    for _ in range(40):
        discriminator(torch.rand(1, 3, 32, 32))
    bounded = [m for m in discriminator.modules() if nn.utils.parametrize.is_parametrized(m)]
    assert len(bounded) == (3 + 2) + 2 * (2 + 1)
    for module in bounded:
        assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)
