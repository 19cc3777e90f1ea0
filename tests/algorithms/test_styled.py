"""Linear and variational style transfer: their losses by hand, who learns from them, and wrong options."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cyclegan.algorithms import Algorithm, build_algorithm
from cyclegan.config import ConfigError, load_config
from tests.conftest import merged

pytestmark = pytest.mark.filterwarnings("ignore:.* has random weights")
SMALL = {"linear": {"matrix": 4}, "variational": {"size": 8, "width": 4}}
WEIGHTS = {
    "linear": ("content", "beta", "reconstruction"),
    "variational": ("content", "beta", "kl", "disentanglement"),
}
LAYERS = ("relu1_1", "relu2_1")


def options(name: str, **more) -> dict:
    return {
        "name": "x",
        "algorithm": {"name": name, "weights": "random", **more},
        "generator": {"name": name, "layer": "relu2_1", **SMALL[name]},
        "init": {"name": "kaiming"},
        "training": {"batch_size": 2},
    }


def build(name: str, **more) -> Algorithm:
    torch.manual_seed(0)
    return build_algorithm(load_config(options(name, **more)))


def batch(count: int = 2) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {domain: torch.rand(count, 3, 32, 32, generator=draw) * 2 - 1 for domain in "AB"}


def terms_of(algorithm: Algorithm, pictures: dict) -> dict[str, torch.Tensor]:
    ((optimizer, terms),) = algorithm.losses(pictures)
    assert optimizer == "generators"
    return terms


def curve_of(algorithm: Algorithm, pictures: dict[str, torch.Tensor], term: str, steps: int = 5) -> list[float]:
    """A term while training minimises the sum of all."""
    optimizer, curve = torch.optim.Adam(algorithm.G.parameters(), 3e-4), []
    for _ in range(steps):
        torch.manual_seed(0)  # the same draw of each style
        terms = terms_of(algorithm, dict(pictures))
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        curve.append(terms[term].item())
    return curve


def gram_by_hand(algorithm: Algorithm, painted: torch.Tensor, style: torch.Tensor) -> float:
    """Equation 4 of Gatys et al., over layers in equal shares and the mean of the pictures."""
    total = 0.0
    found, wanted = (algorithm.backbone(x) for x in (painted, style))
    for layer in LAYERS:
        for one, other in zip(found[layer], wanted[layer], strict=True):
            products = [torch.einsum("chw,dhw->cd", x, x) / x[0].numel() for x in (one, other)]
            total += (products[0] - products[1]).square().sum().item() / (4 * len(one) ** 2)
    return total / len(LAYERS) / len(painted)


@torch.no_grad()
def test_the_losses_of_linear_are_the_papers():
    algorithm, pictures = build("linear", relative=False, content=2.0, beta=7.0, reconstruction=3.0).eval(), batch()
    given = dict(pictures)
    terms = terms_of(algorithm, given)
    fake, plain = algorithm.G(pictures["A"], pictures["B"], learning=True)
    assert torch.equal(given["fake_B"], fake)
    found, again, wanted = (algorithm.backbone(x)["relu2_1"] for x in (fake, plain, pictures["A"]))
    assert terms["content_B"].item() == pytest.approx(2 * 0.5 * (found - wanted).square().sum().item() / 2, rel=1e-4)
    expected = F.mse_loss(plain, pictures["A"]) + 0.5 * (again - wanted).square().sum() / 2
    assert terms["reconstruction"].item() == pytest.approx(3 * expected.item(), rel=1e-4)
    assert terms["style_B"].item() == pytest.approx(7 * gram_by_hand(algorithm, fake, pictures["B"]), rel=1e-3)


@torch.no_grad()
def test_the_losses_of_variational_are_the_papers():
    weights = {"content": 2.0, "beta": 7.0, "kl": 3.0, "disentanglement": 5.0}
    algorithm, pictures = build("variational", relative=False, **weights).eval(), batch()
    algorithm.G.style_encoder.log_variance.bias.fill_(-8)  # hardly any noise, and much to diverge by
    given = dict(pictures)
    torch.manual_seed(4)
    terms = terms_of(algorithm, given)
    contents = torch.stack([pictures["A"][i] for i in (0, 1, 1, 0)])
    torch.manual_seed(4)
    fakes, *_ = algorithm.G(contents, pictures["B"], learning=True)
    assert torch.allclose(given["fake_B"], fakes[:2])
    mean, log_variance = algorithm.G.style_encoder(pictures["B"])
    found, wanted = (algorithm.backbone(x)["relu2_1"] for x in (fakes[:2], pictures["A"]))
    assert terms["content_B"].item() == pytest.approx(2 * 0.5 * (found - wanted).square().sum().item() / 2, rel=1e-4)
    assert terms["style_B"].item() == pytest.approx(7 * gram_by_hand(algorithm, fakes[:2], pictures["B"]), rel=1e-3)
    kl = (log_variance.exp() + mean**2 - 1 - log_variance).sum().item() / 2 / 2
    assert terms["kl"].item() == pytest.approx(3 * kl, rel=1e-4)


@torch.no_grad()
def test_disentanglement_compares_each_picture_with_the_other_content_in_its_style(monkeypatch: pytest.MonkeyPatch):
    algorithm, pictures = build("variational", disentanglement=5.0), batch()
    torch.manual_seed(2)
    own, mean = 2 * torch.randn(4, 8), torch.randn(2, 8)  # what untrained networks would hardly give: not all 0
    fakes, *_ = algorithm.G(pictures["A"].repeat(2, 1, 1, 1), pictures["B"], learning=True)
    seen = []
    told = (fakes, mean, torch.zeros(2, 8), own)
    monkeypatch.setattr(algorithm.G, "forward", lambda contents, _, learning: seen.append(contents) or told)
    expected = [
        max(0.0, ((own[i] - own[i + 2]).square().sum() - (own[i] - mean[i]).square().sum()).item()) for i in (0, 1)
    ]
    assert sum(expected) > 1
    assert terms_of(algorithm, pictures)["disentanglement"].item() == pytest.approx(5 * sum(expected) / 2, rel=1e-4)
    assert torch.equal(seen[0], torch.stack([pictures["A"][i] for i in (0, 1, 1, 0)]))


@pytest.mark.parametrize(
    ("name", "option", "term"),
    [
        ("linear", "content", "content_B"),
        ("linear", "beta", "style_B"),
        ("linear", "reconstruction", "reconstruction"),
        ("variational", "content", "content_B"),
        ("variational", "beta", "style_B"),
        ("variational", "kl", "kl"),
    ],
)
def test_training_by_a_term_alone_lowers_it_and_leaves_the_encoder(name: str, option: str, term: str):
    algorithm, pictures = build(name, **dict.fromkeys(WEIGHTS[name], 0.0) | {option: 1.0}), batch()
    encoder = {key: value.clone() for key, value in algorithm.G.encoder.state_dict().items()}
    curve = curve_of(algorithm, pictures, term)
    assert 0 < curve[-1] < curve[0]
    assert all(torch.equal(value, encoder[key]) for key, value in algorithm.G.encoder.state_dict().items())


def test_training_by_disentanglement_alone_lowers_it():
    algorithm, pictures = build("variational", content=0.0, beta=0.0, kl=0.0, disentanglement=1.0), batch()
    with torch.no_grad():
        algorithm.G.style_encoder.log_variance.bias.fill_(-8)  # hardly any noise
        pictures["B"] = algorithm.G(pictures["A"], pictures["B"])  # styles that the first is near to already
    curve = curve_of(algorithm, pictures, "disentanglement")
    assert 0 <= curve[-1] < curve[0] / 10


def test_one_content_is_enough_without_disentanglement():
    with pytest.raises(ConfigError, match=r"algorithm\.disentanglement: compares two contents of a batch"):
        build_algorithm(load_config(merged(options("variational"), training={"batch_size": 1})))
    given = merged(options("variational", disentanglement=0), training={"batch_size": 1})
    terms = terms_of(build_algorithm(load_config(given)), batch(1))
    assert sorted(terms) == ["content_B", "kl", "style_B"]


@pytest.mark.parametrize("name", sorted(SMALL))
def test_each_wants_its_own_generator(name: str):
    with pytest.raises(ConfigError, match=rf"generator\.name: {name} needs its own, {name}; found resnet"):
        build_algorithm(load_config(merged(options(name), generator={"name": "resnet"})))
