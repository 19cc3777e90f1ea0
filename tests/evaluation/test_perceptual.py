import lpips
import pytest
import torch
from torchvision.models import alexnet

from cyclegan.evaluation.perceptual import lpips_from
from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.networks.pretrained import WeightsError


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    torch.manual_seed(0)
    network = alexnet(weights=None)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_distance_is_lpips_on_the_named_trunk(trunk, monkeypatch):
    network, path = trunk
    monkeypatch.setattr("lpips.pretrained_networks.tv.alexnet", lambda pretrained: network.eval())
    theirs = lpips.LPIPS(net="alex", verbose=False)
    x, y = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    monkeypatch.undo()
    with torch.inference_mode():
        assert lpips_from(path)(x, y).tolist() == pytest.approx(theirs(x, y).flatten().tolist(), rel=1e-5)
        assert lpips_from(path)(x, x).tolist() == [0, 0]


@pytest.mark.parametrize("side", [30, 31])
def test_too_small_pictures_are_refused_and_no_others(trunk, side):
    picture = torch.zeros(1, 3, 64, side)
    if side == 31:
        assert lpips_from(trunk[1])(picture, picture).tolist() == [0]
    else:
        with pytest.raises(EvaluationError, match="sides of 31 pixels"):
            lpips_from(trunk[1])(picture, picture)


def test_missing_and_foreign_weights_are_named(tmp_path, trunk):
    with pytest.raises(WeightsError, match=r"no weights file nowhere\.pth"):
        lpips_from("nowhere.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(WeightsError, match=r"foreign\.pth does not fit"):
        lpips_from(tmp_path / "foreign.pth")


@pytest.mark.parametrize("damage", [b"", b"no weights", b"PK\x03\x04 cut off", b"list"])
def test_damaged_weights_are_one_line(tmp_path, damage):
    path = tmp_path / "damaged.pth"
    if damage == b"list":
        torch.save([1], path)
    else:
        path.write_bytes(damage)
    with pytest.raises(WeightsError, match=r"damaged\.pth does not fit LPIPS's trunk") as error:
        lpips_from(path)
    assert "\n" not in str(error.value)
