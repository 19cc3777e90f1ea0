from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cyclegan.algorithms import build_algorithm
from cyclegan.algorithms.cut import CUT
from cyclegan.config import ConfigError, load_config
from cyclegan.losses import patch_nce, r1_penalty
from cyclegan.networks.resnet import PICTURE, ResnetGenerator

NETWORKS = {"generator": {"width": 4, "blocks": 1}, "discriminator": {"width": 4, "layers": 2}}


def cut(changes: dict | None = None, **options) -> CUT:
    torch.manual_seed(0)
    algorithm = {"name": "cut", "width": 8, "patches": 9999, **options}
    return build_algorithm(load_config({"name": "x", "algorithm": algorithm, **NETWORKS, **(changes or {})})).double()


def pair(count: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {domain: torch.rand(count, 3, 24, 24, dtype=torch.float64) * 2 - 1 for domain in "AB"}


# ---- the loss


def slow_nce(query: torch.Tensor, key: torch.Tensor, temperature: float, across: bool) -> float:
    """Equation 2, place by place: -log of the share that the right key has in the sum over all keys."""
    losses = []
    for n in range(len(query)):
        for place in range(query.shape[1]):
            scores = {}
            for m in range(len(key)) if across else [n]:
                for other in range(key.shape[1]):
                    a, b = query[n, place].tolist(), key[m, other].tolist()
                    dot = sum(x * y for x, y in zip(a, b, strict=True))
                    scores[m, other] = dot / math.hypot(*a) / math.hypot(*b) / temperature
            total = sum(math.exp(score) for score in scores.values())
            losses.append(-math.log(math.exp(scores[n, place]) / total))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_patch_nce_is_what_a_slow_loop_gives(across: bool, temperature: float):
    torch.manual_seed(0)
    query, key = torch.randn(3, 5, 4, dtype=torch.float64), torch.randn(3, 5, 4, dtype=torch.float64)
    ours = patch_nce(query, key, temperature, across).item()
    assert ours == pytest.approx(slow_nce(query, key, temperature, across), rel=1e-12)


def test_patch_nce_has_a_gradient_for_the_query_and_none_for_the_key():
    torch.manual_seed(0)
    query, key = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    patch_nce(query, key).backward()
    assert query.grad.abs().min() > 0 and key.grad is None


def test_r1_of_a_linear_score_is_half_its_squared_slope():
    torch.manual_seed(0)
    slope = torch.randn(3, 8, 8)
    real = torch.randn(4, 3, 8, 8)
    penalty = r1_penalty(lambda image: (image * slope).sum((1, 2, 3)), real)
    assert penalty.item() == pytest.approx(slope.square().sum().item() / 2, rel=1e-5)


# ---- the generator's layers


def test_the_landmarks_of_the_papers_generator_are_the_papers_layers():
    generator = ResnetGenerator(width=2, blocks=9, downsample="antialias", upsample="antialias")
    assert generator.landmarks() == [0, 4, 8, 12, 16]
    assert [generator.channels_after(layer) for layer in generator.landmarks()] == [3, 4, 8, 8, 8]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_are_what_passes_through_the_network(checkpointing: bool):
    torch.manual_seed(0)
    generator, image = ResnetGenerator(width=2, blocks=2, skip=True), torch.rand(1, 3, 16, 16)
    generator.checkpointing = checkpointing
    seen = {}
    for number, layer in enumerate(generator.model):
        layer.register_forward_hook(lambda _, __, output, number=number: seen.update({number: output}))
    picture = generator(image)
    *features, again = generator(image, (0, 4, 11, PICTURE))
    assert torch.equal(picture, again)
    for feature, number in zip(features, (0, 4, 11), strict=True):
        assert torch.equal(feature, seen[number])
    seen.clear()
    generator(image, (0, 4))
    assert max(seen) == 4  # no more than needed


# ---- the published algorithm, written down again


def encode(model: torch.nn.Sequential, image: torch.Tensor, layers: list[int]) -> list[torch.Tensor]:
    features = []
    for number, layer in enumerate(model):
        image = layer(image)
        if number in layers:
            features.append(image)
    return features


def plain_nce(ours: CUT, source: torch.Tensor, output: torch.Tensor, flipped: bool, across: bool) -> torch.Tensor:
    total = 0.0
    queries, keys = (encode(ours.G.model, image, [0, 4, 7, 10]) for image in (output, source))
    for mlp, query, key in zip(ours.heads.heads, queries, keys, strict=True):
        if flipped:
            query = query.flip(3)
        q, k = (mlp(feature.permute(0, 2, 3, 1).flatten(1, 2)) for feature in (query, key))
        q, k = (x / x.norm(dim=2, keepdim=True).clamp(min=1e-12) for x in (q, k.detach()))
        if across:
            q, k = q.reshape(1, -1, q.shape[2]), k.reshape(1, -1, k.shape[2])
        # As the authors write it: the right key first, then all keys with the right one struck out by a -10.
        right = (q * k).sum(2, keepdim=True)
        others = torch.bmm(q, k.transpose(1, 2)).masked_fill(torch.eye(q.shape[1], dtype=torch.bool), -10.0)
        logits = torch.cat([right, others], 2) / 0.07
        total = total - logits.log_softmax(2)[..., 0].mean()
    return total / len(queries)


def plain_terms(ours: CUT, batch: dict, flipped: bool, across: bool = False) -> dict[str, torch.Tensor]:
    a, b, one = batch["A"], batch["B"], torch.tensor(1.0, dtype=torch.float64)
    turned = [x.flip(3) if flipped else x for x in (a, b)]
    fake, idt = ours.G(turned[0]), ours.G(turned[1])
    mse = F.mse_loss
    real_score, fake_score = ours.D(b), ours.D(fake.detach())
    halves = 0.5 if ours.identity else 1.0
    terms = {
        "discriminators/B": 0.5
        * (mse(real_score, one.expand_as(real_score)) + mse(fake_score, 0 * one.expand_as(fake_score))),
        "generators/adversarial_B": mse(ours.D(fake), one.expand_as(fake_score)),
        "generators/nce": halves * ours.nce * plain_nce(ours, a, fake, flipped, across),
    }
    if ours.identity:
        terms["generators/identity"] = halves * ours.identity * plain_nce(ours, b, idt, flipped, across)
    if ours.reconstruction:
        terms["generators/reconstruction"] = ours.reconstruction * F.l1_loss(idt, turned[1])
    return terms


VARIATIONS = {
    "cut": {},
    "fastcut": {"nce": 10.0, "identity": 0.0, "flip": True},
    "flipped identity": {"flip": True, "reconstruction": 1.0},
    "sincut": {"negatives": "batch", "nce": 4.0, "identity": 4.0, "reconstruction": 1.0},
}


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_and_gradients_are_those_of_the_published_algorithm(variation: str, seed: int):
    ours, batch = cut(**VARIATIONS[variation]), pair()
    torch.manual_seed(seed)
    flipped = ours.flip and torch.rand(()).item() < 0.5
    assert not ours.flip or flipped == (seed == 0)  # one of each kind
    expected = plain_terms(ours, batch, flipped, ours.across)
    torch.manual_seed(seed)
    found = {f"{name}/{term}": value for name, terms in ours.losses(batch) for term, value in terms.items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9), name
    parameters = [*ours.G.parameters(), *ours.heads.parameters()]
    gradients = [
        torch.autograd.grad(sum(value for name, value in terms.items() if name.startswith("gen")), parameters)
        for terms in (found, expected)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-7, atol=1e-12)


def test_sincut_adds_r1_to_the_discriminators_loss():
    ours, batch = cut(r1=2.0, adversarial="nonsaturating"), pair()
    _, terms = next(iter(ours.losses(batch)))
    real = batch["B"].clone().requires_grad_()
    scores = ours.D(real)
    (gradient,) = torch.autograd.grad(scores.sum(), real)
    expected = 2.0 * 0.5 * gradient.square().sum((1, 2, 3)).mean() / scores[0].numel()
    assert terms["r1"].item() == pytest.approx(expected.item(), rel=1e-9)
    terms["r1"].backward()
    assert any(p.grad.abs().max() > 0 for p in ours.D.parameters()) and not batch["B"].requires_grad


def test_only_so_many_places_are_compared_and_the_same_ones_on_both_sides(monkeypatch: pytest.MonkeyPatch):
    ours, seen = cut(patches=7), []
    plain = type(ours.heads).forward

    def watching(heads, features, places):
        seen.append([chosen.tolist() for chosen in places])
        return plain(heads, features, places)

    monkeypatch.setattr(type(ours.heads), "forward", watching)
    list(ours.losses(pair()))
    assert len(seen) == 2 and seen[0] == seen[1]
    assert all(len(set(chosen)) == 7 for chosen in seen[0])


def test_b_to_a_swaps_the_domains():
    forth, back, batch = cut(), cut(direction="BtoA"), pair()
    torch.manual_seed(0)
    a = [{k: v.item() for k, v in terms.items()} for _, terms in forth.losses(batch)]
    torch.manual_seed(0)
    b = [{k: v.item() for k, v in t.items()} for _, t in back.losses({"A": batch["B"], "B": batch["A"]})]
    assert [list(terms.values()) for terms in a] == [list(terms.values()) for terms in b]
    assert list(back.generators()) == ["BtoA"] and "adversarial_A" in b[1]


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ConfigError, match=r"layers: \[99\].*0 to 19"):
        cut(layers=[99])
    with pytest.raises(ConfigError, match="only resnet"):
        cut({"generator": {"name": "unet", "width": 2}})
    with pytest.raises(ConfigError, match=r"channels"):
        cut({"data": {"B": {"channels": 1}}})
