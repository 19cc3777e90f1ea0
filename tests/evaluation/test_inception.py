import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import inception_v3

from cyclegan.evaluation.extractors import inception
from cyclegan.evaluation.inception import LAYERS, Inception, read_state
from cyclegan.networks.pretrained import WeightsError


@pytest.fixture(scope="module")
def pictures():
    return torch.randint(0, 256, (1, 3, 299, 299), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def features(shared_state, pictures):
    with torch.inference_mode():
        return {layer: Inception(shared_state, layer).eval()(pictures / 255 * 2 - 1) for layer in LAYERS}


def relative(x, y):
    return ((x - y).abs().max() / y.abs().max()).item()


def test_all_four_layers_are_pytorch_fids(shared_state, pictures, features, pytorch_fid_network):
    with torch.inference_mode():
        for layer, maps in zip(LAYERS, pytorch_fid_network((0, 1, 2, 3))(pictures / 255), strict=True):
            assert relative(features[layer], maps.mean((2, 3))) < 1e-5


def test_features_do_not_depend_on_how_the_pictures_are_cut_up(shared_state, monkeypatch):
    images = torch.rand(5, 3, 75, 75, generator=torch.Generator().manual_seed(1)) * 2 - 1
    network = Inception(shared_state).eval()
    with torch.inference_mode():
        one_by_one = torch.cat([network(image[None]) for image in images])
        for at_once, at_first in ((2, 1), (3, 2), (8, 4)):
            monkeypatch.setattr("cyclegan.evaluation.inception.AT_ONCE", at_once)
            monkeypatch.setattr("cyclegan.evaluation.inception.AT_FIRST", at_first)
            assert relative(network(images), one_by_one) < 1e-5


def test_all_four_layers_are_torch_fidelitys(shared_weights, pictures, features):
    names = [str(layer) for layer in LAYERS]
    network = FeatureExtractorInceptionV3("shared", names, feature_extractor_weights_path=str(shared_weights))
    on_their_scale = {layer: None for layer in LAYERS}
    with torch.inference_mode():
        for layer, expected in zip(LAYERS, network(pictures), strict=True):
            ours = Inception(read_state(shared_weights), layer).eval()((pictures - 128.0) / 128)
            on_their_scale[layer] = relative(ours, expected)
    assert max(on_their_scale.values()) < 1e-5


def test_imagenet_weights_run_through_torchvisions_graph(tmp_path, pictures):
    torch.manual_seed(0)
    network = inception_v3(weights=None, aux_logits=True, init_weights=False, transform_input=False).eval()
    torch.save(network.state_dict(), tmp_path / "inception_v3_google.pth")
    extractor = inception(weights=tmp_path / "inception_v3_google.pth")
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        assert relative(extractor([pictures[0]]), network(pictures / 255 * 2 - 1)) < 1e-5
    assert (extractor.name, extractor.is_fid) == ("inception-imagenet", False)


def test_the_unpatched_graph_gives_other_features(shared_state, pictures, features):
    unpatched = {**shared_state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    with torch.inference_mode():
        other = Inception(unpatched).eval()(pictures / 255 * 2 - 1)
    assert relative(other, features[2048]) > 0.01


def test_only_the_published_bytes_are_called_fid(shared_weights, published_weights):
    extractor = inception()
    assert (extractor.name, extractor.is_fid) == ("inception-2015-12-05", True)


def test_other_weights_and_random_weights_are_not_called_fid(shared_weights):
    unpublished, random = inception(weights=shared_weights), inception(allow_random_weights=True)
    assert (unpublished.name, unpublished.is_fid) == ("inception-unpublished", False)
    assert (random.name, random.is_fid) == ("inception-random", False)


def test_weights_saved_from_a_parallel_module_are_read(tmp_path, shared_state, features, pictures):
    torch.save({f"module.{key}": value for key, value in shared_state.items()}, tmp_path / "parallel.pth")
    extractor = inception(weights=tmp_path / "parallel.pth", layer=64)
    assert relative(extractor([pictures[0]]), features[64]) < 1e-5


@pytest.mark.parametrize(
    "content, message",
    [(b"not a file of tensors", "weights_only"), ({"conv.weight": 1}, "not an Inception-v3"), ([1], "holds a list")],
)
def test_files_that_are_no_inception_are_named(tmp_path, content, message):
    path = tmp_path / "other.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(WeightsError, match=rf"other\.pth .*{message}"):
        inception(weights=path)


def test_unknown_protocols_and_layers_list_the_known_ones(shared_state):
    with pytest.raises(ValueError, match="pytorch-fid, torch-fidelity, clean"):
        inception(protocol="bicubic", allow_random_weights=True)
    with pytest.raises(ValueError, match="64, 192, 768, 2048"):
        Inception(shared_state, 1000)
