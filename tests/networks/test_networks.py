from __future__ import annotations

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclegan.networks import DISCRIMINATORS, GENERATORS, build_generator
from cyclegan.networks.initialize import initialize
from cyclegan.networks.layers import BlurDown, BlurUp
from cyclegan.networks.multiscale import MultiscaleDiscriminator
from cyclegan.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from cyclegan.networks.resnet import ResnetGenerator
from cyclegan.networks.unet import UnetGenerator

COUNTS = [  # the reference's, counted in its own code
    (ResnetGenerator, {"blocks": 9}, 11_378_179),
    (ResnetGenerator, {"blocks": 9, "norm": "batch"}, 11_383_427),
    (ResnetGenerator, {"blocks": 6}, 7_837_699),
    (ResnetGenerator, {"blocks": 6, "norm": "batch"}, 7_841_411),
    (ResnetGenerator, {"blocks": 4}, 5_477_379),
    (ResnetGenerator, {"blocks": 9, "in_channels": 1, "out_channels": 1}, 11_365_633),
    (ResnetGenerator, {"blocks": 9, "width": 32}, 2_850_563),
    (ResnetGenerator, {"blocks": 9, "downsample": "antialias", "upsample": "antialias"}, 11_378_179),
    (UnetGenerator, {"downs": 7}, 41_825_667),
    (UnetGenerator, {"downs": 7, "norm": "batch"}, 41_828_995),
    (UnetGenerator, {"downs": 8}, 54_409_603),
    (UnetGenerator, {"downs": 8, "norm": "batch"}, 54_413_955),
    (PatchDiscriminator, {"layers": 1}, 136_385),
    (PatchDiscriminator, {"layers": 2}, 662_977),
    (PatchDiscriminator, {"layers": 3}, 2_764_737),
    (PatchDiscriminator, {"layers": 3, "norm": "batch"}, 2_765_633),
    (PatchDiscriminator, {"layers": 3, "antialias": True}, 2_764_737),
    (PatchDiscriminator, {"layers": 4}, 6_959_553),
    (PatchDiscriminator, {"layers": 5}, 11_154_369),
    (PixelDiscriminator, {}, 8_705),
    (PixelDiscriminator, {"norm": "batch"}, 8_832),
]


@pytest.mark.parametrize(("network", "options", "count"), COUNTS, ids=str)
def test_parameter_counts_are_the_references(network: type, options: dict, count: int):
    with torch.device("meta"):
        assert sum(p.numel() for p in network(**options).parameters()) == count


def resnet_keys(blocks: int, second: int) -> set[str]:
    layers = [1, 4, 7, 10 + blocks, 13 + blocks, 17 + blocks]
    convs = [f"model.{i}" for i in layers]
    convs += [f"model.{10 + b}.conv_block.{c}" for b in range(blocks) for c in (1, second)]
    return {f"{conv}.{kind}" for conv in convs for kind in ("weight", "bias")}


def test_resnet_keys_are_the_references():
    assert set(ResnetGenerator(width=4).state_dict()) == resnet_keys(9, 5)
    assert set(ResnetGenerator(width=4, blocks=6).state_dict()) == resnet_keys(6, 5)
    assert {"model.16.weight", "model.19.weight", "model.23.weight"} <= set(ResnetGenerator(blocks=6).state_dict())
    assert set(ResnetGenerator(width=4, dropout=0.5).state_dict()) == resnet_keys(9, 6)


def test_transposed_convolutions_have_the_references_shapes():
    state = ResnetGenerator().state_dict()
    assert state["model.19.weight"].shape == (256, 128, 3, 3) and state["model.22.weight"].shape == (128, 64, 3, 3)


def test_batch_norm_brings_the_biases():
    keys = set(ResnetGenerator(width=4, norm="batch").state_dict())
    assert "model.1.bias" not in keys and "model.26.bias" in keys
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert {f"model.2.{kind}" for kind in kinds} <= keys


def test_discriminator_keys_are_the_references():
    convs = {f"model.{i}.{kind}" for i in (0, 2, 5, 8, 11) for kind in ("weight", "bias")}
    assert set(PatchDiscriminator(width=4).state_dict()) == convs
    assert set(PixelDiscriminator(width=4).state_dict()) == {
        f"net.{i}.{k}" for i in (0, 2, 5) for k in ("weight", "bias")
    }
    assert "model.5.bias" not in PatchDiscriminator(norm="batch").state_dict()


def test_unet_keys_are_the_references():
    keys = set(UnetGenerator(width=4).state_dict())
    assert len(keys) == 32
    assert {"model.model.0.weight", "model.model.1.model.1.weight", "model.model.3.bias"} <= keys
    assert {"model.model.1.model.3.model.1.weight", "model.model.1.model.5.weight"} <= keys
    inner = "model.model.1." + "model.3." * 6
    assert {f"{inner}model.1.weight", f"{inner}model.3.weight"} <= keys


@pytest.mark.parametrize(("layers", "side"), [(1, 126), (2, 62), (3, 30), (4, 14), (5, 6)])
def test_patch_maps_have_the_references_sides(layers: int, side: int):
    with torch.device("meta"):
        assert PatchDiscriminator(width=4, layers=layers)(torch.empty(1, 3, 256, 256)).shape == (1, 1, side, side)


def test_an_antialiased_discriminator_is_cuts():
    discriminator = PatchDiscriminator(width=4, antialias=True)
    assert discriminator(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    convs = {f"model.{i}.{kind}" for i in (0, 3, 7, 11, 14) for kind in ("weight", "bias")}
    assert set(discriminator.state_dict()) == convs | {f"model.{i}.filt" for i in (2, 6, 10)}


@pytest.mark.parametrize("upsample", ["transpose", "resize", "antialias"])
@pytest.mark.parametrize("downsample", ["strided", "antialias"])
def test_output_sides_are_rounded_up_to_multiples_of_four(upsample: str, downsample: str):
    generator = ResnetGenerator(width=2, blocks=1, upsample=upsample, downsample=downsample)
    for side, expected in ((101, 104), (254, 256), (256, 256)):
        assert generator(torch.zeros(1, 3, side, 16)).shape == (1, 3, expected, 16)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
@pytest.mark.parametrize("norm", ["instance", "batch", "group", "none"])
def test_every_norm_and_padding_works_and_stays_in_range(norm: str, padding: str):
    out = ResnetGenerator(width=4, blocks=1, norm=norm, padding=padding)(torch.rand(2, 3, 16, 16) * 2 - 1)
    assert out.shape == (2, 3, 16, 16) and out.abs().max() <= 1


def test_a_generator_with_skip_starts_as_the_identity():
    generator = initialize(ResnetGenerator(width=4, blocks=1, skip=True))
    generator.start_as_identity()
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(generator(image), image)


def test_instance_norm_makes_train_and_eval_alike():
    generator, image = ResnetGenerator(width=4, blocks=2), torch.rand(1, 3, 16, 16)
    assert torch.equal(generator.train()(image), generator.eval()(image))


def test_dropout_makes_them_differ():
    generator, image = ResnetGenerator(width=4, blocks=2, dropout=0.5), torch.rand(1, 3, 16, 16)
    assert not torch.equal(generator.train()(image), generator.eval()(image))


def test_checkpointing_changes_neither_output_nor_gradient():
    generator, image = ResnetGenerator(width=4, blocks=2), torch.rand(1, 3, 16, 16)
    gradients = []
    for generator.checkpointing in (False, True):
        generator.zero_grad()
        generator(image).square().mean().backward()
        gradients.append([p.grad.clone() for p in generator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_gradients_of_one_picture_do_not_depend_on_the_memory_layout():
    """Instance norm's do in PyTorch 2.15: with channels_last they are wrong by more than their size."""
    generator = ResnetGenerator(width=4, blocks=1).double()
    image = torch.rand(1, 3, 16, 16, dtype=torch.double)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = copy.deepcopy(generator).to(memory_format=layout)
        laid(image.to(memory_format=layout)).square().mean().backward()
        gradients.append([p.grad for p in laid.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(*gradients, strict=True))


def plain_unet(state: dict, x: torch.Tensor, prefix: str = "model.model.") -> torch.Tensor:
    """The reference's U-Net written down again as a recursion over its keys, its in-place activations included."""
    norm = F.instance_norm

    def level(prefix: str, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(x, 0.2)
        down = F.conv2d(x, state[prefix + "1.weight"], state[prefix + "1.bias"], 2, 1)
        if prefix + "5.weight" in state:
            inner, up = level(prefix + "3.model.", norm(down)), "5"
        else:
            inner, up = down, "3"
        y = F.conv_transpose2d(F.relu(inner), state[f"{prefix}{up}.weight"], state[f"{prefix}{up}.bias"], 2, 1)
        return torch.cat([x, norm(y)], 1)

    down = F.conv2d(x, state[prefix + "0.weight"], state[prefix + "0.bias"], 2, 1)
    y = F.relu(level(prefix + "1.model.", down))
    return torch.tanh(F.conv_transpose2d(y, state[prefix + "3.weight"], state[prefix + "3.bias"], 2, 1))


def test_unet_computes_what_the_reference_computes():
    generator = initialize(UnetGenerator(width=2, downs=5), gain=0.2)
    image = torch.randn(1, 3, 64, 64)
    assert torch.allclose(generator(image), plain_unet(generator.state_dict(), image), atol=1e-6)


def test_blurred_resampling_keeps_constants_and_has_the_known_taps():
    ones = torch.ones(1, 2, 8, 8)
    assert torch.allclose(BlurDown(2)(ones), torch.ones(1, 2, 4, 4))
    assert torch.allclose(BlurUp(2)(ones), torch.ones(1, 2, 16, 16))
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    bilinear = F.interpolate(ramp, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(BlurUp(1)(ramp)[..., 2:-2], bilinear[..., 2:-2])
    assert torch.allclose(BlurDown(1)(ramp)[0, 0, 0, 1:], torch.tensor([2.0, 4.0, 6.0]))


def test_spectral_norm_bounds_every_convolution():
    discriminator = PatchDiscriminator(width=8, spectral=True)
    for _ in range(30):
        discriminator(torch.rand(1, 3, 32, 32))
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("init", ["normal", "xavier", "kaiming", "orthogonal"])
def test_initial_weights_follow_their_distribution(init: str):
    weight = initialize(nn.Sequential(nn.Conv2d(64, 64, 3)), init, 0.02)[0].weight
    fan = 64 * 9
    expected = {"normal": 0.02, "xavier": 0.02 * (2 / (2 * fan)) ** 0.5, "kaiming": (2 / fan) ** 0.5}
    if init == "orthogonal":
        flat = weight.flatten(1)
        assert torch.allclose(flat @ flat.T, 0.02**2 * torch.eye(64), atol=1e-7)
    else:
        assert weight.std().item() == pytest.approx(expected[init], rel=0.03)


def test_the_distribution_reaches_spectrally_normalised_weights_too():
    network = initialize(PatchDiscriminator(width=32, spectral=True), "normal", 0.05)
    weights = torch.cat(
        [m.parametrizations.weight.original.flatten() for m in network.model if isinstance(m, nn.Conv2d)]
    )
    assert weights.std().item() == pytest.approx(0.05, rel=0.03)


def test_biases_start_at_zero_and_batch_norm_near_one():
    network = initialize(ResnetGenerator(width=16, blocks=1, norm="batch"))
    assert all(m.bias is None or not m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d))
    weights = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert weights.mean().item() == pytest.approx(1, abs=0.02) and weights.std().item() == pytest.approx(0.02, rel=0.3)


def test_a_built_generator_knows_its_architecture():
    architecture = {"name": "resnet", "in_channels": 1, "out_channels": 3, "width": 4, "blocks": 1}
    assert build_generator(architecture).architecture == architecture


def test_every_network_by_name_takes_its_channels():
    for network in GENERATORS.values():
        sized = {"width": 2} if "width" in inspect.signature(network).parameters else {}
        generator = network(in_channels=1, out_channels=3, **sized)
        side = generator.smallest
        assert generator(torch.zeros(2, 1, side, side)).shape == (2, 3, side, side)
    for network in DISCRIMINATORS.values():
        scores = network(in_channels=6, width=2)(torch.zeros(2, 6, 128, 128))
        for score in [scores] if isinstance(scores, torch.Tensor) else scores:
            assert len(score) == 2


def test_each_scale_judges_half_the_picture_of_the_one_before():
    torch.manual_seed(0)
    network, image = MultiscaleDiscriminator(width=2, layers=1, scales=3), torch.rand(2, 3, 32, 48)
    padded = F.pad(image, (1, 1, 1, 1))
    counts = F.pad(torch.ones(1, 1, 32, 48), (1, 1, 1, 1))
    box = torch.ones(3, 1, 3, 3)
    half = F.conv2d(padded, box, stride=2, groups=3) / F.conv2d(counts, box[:1], stride=2)
    scores = network(image)
    assert [tuple(score.shape[1:]) for score in scores] == [(1, 14, 22), (1, 6, 10), (1, 2, 4)]
    assert torch.allclose(scores[1], network.scales[1](half), atol=1e-6)
