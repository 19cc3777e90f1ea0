from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import VGG16_Weights, VGG19_Weights
from torchvision.models.vgg import cfgs, make_layers

from cyclegan.networks.pretrained import WeightsError
from cyclegan.networks.vgg import WEIGHTS, VggFeatures, load_vgg


@pytest.mark.parametrize(("network", "letter"), [("vgg16", "D"), ("vgg19", "E")])
def test_features_are_torchvisions_of_pictures_normalised_as_they_were_trained(network: str, letter: str):
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs = make_layers(cfgs[letter])
    state = {name: 0.1 * torch.randn(value.shape) for name, value in list(theirs.state_dict().items())[:8]}
    ours = VggFeatures(network, ["relu1_1", "relu2_2"])
    ours.load_state_dict({f"features.{name}": value for name, value in state.items()})
    theirs = theirs[:9].to_empty(device="cpu")
    theirs.load_state_dict(state)
    image = torch.rand(2, 3, 16, 24)  # in [0, 1], as torchvision has them
    x = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    found = ours(image * 2 - 1)
    assert list(found) == ["relu1_1", "relu2_2"]
    # torchvision activates in place: a prefix of the network gives its last activation
    assert torch.allclose(found["relu1_1"], theirs[:2](x.clone()), atol=1e-5)
    assert torch.allclose(found["relu2_2"], theirs(x.clone()), atol=1e-5)


@pytest.mark.parametrize(("network", "letter"), [("vgg16", "D"), ("vgg19", "E")])
def test_every_layer_lies_after_as_many_pools_as_its_block(network: str, letter: str):
    with torch.device("meta"):
        layers = [f"relu{block}_{1 + (block > 2)}" for block in range(1, 6)]
        ours, theirs = VggFeatures(network, layers), make_layers(cfgs[letter])
        found = ours(torch.empty(1, 3, 64, 64))
    widths = (64, 128, 256, 512, 512)
    assert [tuple(found[f].shape[1:]) for f in layers] == [(w, 64 >> b, 64 >> b) for b, w in enumerate(widths)]
    shapes = {f"features.{name}": value.shape for name, value in theirs.state_dict().items()}
    assert all(shapes[name] == value.shape for name, value in ours.state_dict().items())


def test_average_pooling_averages():
    vgg = load_vgg("vgg16", ["relu1_2", "relu2_1"], "average", allow_random_weights=True)
    found = vgg(torch.rand(1, 1, 8, 8))  # grey pictures, too
    pooled = torch.nn.functional.avg_pool2d(found["relu1_2"], 2)
    assert torch.allclose(found["relu2_1"], torch.relu(vgg.features[5](pooled)))


def test_files_are_those_of_torchvision():
    assert WEIGHTS["vgg16"].url == VGG16_Weights.IMAGENET1K_V1.url
    assert WEIGHTS["vgg19"].url == VGG19_Weights.IMAGENET1K_V1.url
    for weights in WEIGHTS.values():
        assert weights.url.endswith(f"{weights.names[0]}") and f"-{weights.sha256}." in weights.names[0]


def test_a_file_is_loaded_and_a_foreign_one_named(tmp_path: Path):
    vgg = load_vgg("vgg19", ["relu1_1"], allow_random_weights=True)
    torch.save({**vgg.state_dict(), "classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    again = load_vgg("vgg19", ["relu1_1"], weights=tmp_path / "vgg.pth")
    assert torch.equal(again.features[0].weight, vgg.features[0].weight)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    with pytest.raises(WeightsError, match=r"vgg\.pth holds no weights of vgg19"):
        load_vgg("vgg19", ["relu2_1"], weights=tmp_path / "vgg.pth")


def test_unknown_layers_are_refused():
    with pytest.raises(ValueError, match=r"vgg16 has no layer 'relu3_4'; choices: relu1_1, .*relu5_3$"):
        VggFeatures("vgg16", ["relu3_4"])
