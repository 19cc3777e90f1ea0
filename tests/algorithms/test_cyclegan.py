from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclegan.algorithms import build_algorithm
from cyclegan.algorithms.cyclegan import CycleGAN
from cyclegan.config import ConfigError, load_config
from tests.whole import losses_of


def cyclegan(networks: dict | None = None, **options) -> CycleGAN:
    torch.manual_seed(0)
    networks = {"generator": {"width": 4, "blocks": 1}, "discriminator": {"width": 4, "layers": 2}, **(networks or {})}
    return build_algorithm(load_config({"name": "x", "algorithm": {"name": "cyclegan", **options}, **networks}))


def pair(seed: int = 0, count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {d: torch.rand(count, 3, 32, 32, generator=generator) * 2 - 1 for d in "AB"}


# ---- the published algorithm, written down again without any of our code


class PlainBlock(nn.Module):
    def __init__(self, n: int):
        super().__init__()
        pad, conv, norm = nn.ReflectionPad2d, nn.Conv2d, nn.InstanceNorm2d
        self.body = nn.Sequential(pad(1), conv(n, n, 3), norm(n), nn.ReLU(), pad(1), conv(n, n, 3), norm(n))

    def forward(self, x):
        return x + self.body(x)


def plain_generator(n: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReflectionPad2d(3), nn.Conv2d(3, n, 7), nn.InstanceNorm2d(n), nn.ReLU(),
        nn.Conv2d(n, 2 * n, 3, 2, 1), nn.InstanceNorm2d(2 * n), nn.ReLU(),
        nn.Conv2d(2 * n, 4 * n, 3, 2, 1), nn.InstanceNorm2d(4 * n), nn.ReLU(),
        PlainBlock(4 * n),
        nn.ConvTranspose2d(4 * n, 2 * n, 3, 2, 1, 1), nn.InstanceNorm2d(2 * n), nn.ReLU(),
        nn.ConvTranspose2d(2 * n, n, 3, 2, 1, 1), nn.InstanceNorm2d(n), nn.ReLU(),
        nn.ReflectionPad2d(3), nn.Conv2d(n, 3, 7), nn.Tanh(),
    )  # fmt: skip


def plain_discriminator(n: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, n, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(n, 2 * n, 4, 2, 1), nn.InstanceNorm2d(2 * n), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * n, 4 * n, 4, 1, 1), nn.InstanceNorm2d(4 * n), nn.LeakyReLU(0.2),
        nn.Conv2d(4 * n, 1, 4, 1, 1),
    )  # fmt: skip


class PlainCycleGAN:
    """One step as in the paper's PyTorch code: names, order, halves and all."""

    def __init__(self, ours: CycleGAN, lr: float):
        self.G_A, self.G_B = plain_generator(4), plain_generator(4)
        self.D_A, self.D_B = plain_discriminator(4), plain_discriminator(4)  # D_A judges domain B there
        pairs = ((self.G_A, ours.G_AB), (self.G_B, ours.G_BA), (self.D_A, ours.D_B), (self.D_B, ours.D_A))
        for mine, theirs in pairs:
            for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
                p.data.copy_(q.data)
        self.opt_G = torch.optim.SGD([*self.G_A.parameters(), *self.G_B.parameters()], lr)
        self.opt_D = torch.optim.SGD([*self.D_A.parameters(), *self.D_B.parameters()], lr)

    def step(self, real_A, real_B) -> dict[str, float]:
        mse, l1 = nn.MSELoss(), nn.L1Loss()
        fake_B, fake_A = self.G_A(real_A), self.G_B(real_B)
        rec_A, rec_B = self.G_B(fake_B), self.G_A(fake_A)
        losses = {
            "idt_A": l1(self.G_A(real_B), real_B) * 10 * 0.5,
            "idt_B": l1(self.G_B(real_A), real_A) * 10 * 0.5,
            "G_A": mse(self.D_A(fake_B), torch.ones_like(self.D_A(fake_B))),
            "G_B": mse(self.D_B(fake_A), torch.ones_like(self.D_B(fake_A))),
            "cycle_A": l1(rec_A, real_A) * 10,
            "cycle_B": l1(rec_B, real_B) * 10,
        }
        self.opt_G.zero_grad()
        sum(losses.values()).backward()
        self.opt_G.step()
        self.opt_D.zero_grad()
        for name, critic, real, fake in (("D_A", self.D_A, real_B, fake_B), ("D_B", self.D_B, real_A, fake_A)):
            good, bad = critic(real), critic(fake.detach())
            losses[name] = 0.5 * (mse(good, torch.ones_like(good)) + mse(bad, torch.zeros_like(bad)))
            losses[name].backward()
        self.opt_D.step()
        return {name: loss.item() for name, loss in losses.items()}


NAMES = {
    "generators/identity_B": "idt_A", "generators/identity_A": "idt_B",
    "generators/adversarial_B": "G_A", "generators/adversarial_A": "G_B",
    "generators/cycle_A": "cycle_A", "generators/cycle_B": "cycle_B",
    "discriminators/B": "D_A", "discriminators/A": "D_B",
}  # fmt: skip


def our_step(ours: CycleGAN, optimizers: dict, batch: dict) -> dict[str, float]:
    losses = {}
    for name, terms in losses_of(ours, batch):
        sum(terms.values()).backward(inputs=[p for n in ours.trained()[name] for p in n.parameters()])
        optimizers[name].step()
        optimizers[name].zero_grad()
        losses |= {f"{name}/{term}": value.item() for term, value in terms.items()}
    return losses


def sgd(ours: CycleGAN, lr: float) -> dict[str, torch.optim.Optimizer]:
    return {
        name: torch.optim.SGD([p for network in networks for p in network.parameters()], lr)
        for name, networks in ours.trained().items()
    }


def test_steps_agree_with_the_published_algorithm_written_down_again():
    ours = cyclegan()
    plain, optimizers = PlainCycleGAN(ours, lr=0.01), sgd(ours, lr=0.01)
    for step in range(3):
        batch = pair(step)
        expected, losses = plain.step(batch["A"], batch["B"]), our_step(ours, optimizers, batch)
        assert {NAMES[name] for name in losses} == set(expected)
        for name, value in losses.items():
            assert value == pytest.approx(expected[NAMES[name]], abs=1e-5), (step, name)
        pairs = ((plain.G_A, ours.G_AB), (plain.G_B, ours.G_BA), (plain.D_A, ours.D_B), (plain.D_B, ours.D_A))
        for mine, theirs in pairs:
            for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
                assert torch.allclose(p, q, atol=1e-6)


def test_the_discriminators_see_the_pool_of_past_fakes():
    """The reference's pool, image by image in Python, beside ours with the same coin and the same draws."""
    ours = cyclegan(pool=3)
    coins = random.Random(0)

    def fake_rand(*_):
        return torch.tensor(coins.random())

    def fake_randint(high, *_):
        return torch.tensor(coins.randrange(high))

    fakes = [torch.full((2, 3, 1, 1), float(i)) for i in range(20)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", fake_rand)
        patch.setattr(torch, "randint", fake_randint)
        out = [ours.past_b.swap(fake + torch.tensor([0.0, 0.5]).view(2, 1, 1, 1)) for fake in fakes]
    coins, stored, expected = random.Random(0), [], []
    for i in range(20):
        for image in (float(i), i + 0.5):
            if len(stored) < 3:
                stored.append(image)
                expected.append(image)
            elif coins.random() > 0.5:
                place = coins.randrange(3)
                expected.append(stored[place])
                stored[place] = image
            else:
                expected.append(image)
    assert torch.cat(out)[:, 0, 0, 0].tolist() == expected


# ---- the variations


def terms_of(ours: CycleGAN, batch: dict) -> list[tuple[str, set[str]]]:
    return [(name, set(terms)) for name, terms in losses_of(ours, batch)]


@pytest.mark.parametrize("kind", ["lsgan", "vanilla", "nonsaturating", "hinge", "wgan", "wgan-gp"])
def test_every_adversarial_loss_trains(kind: str):
    ours = cyclegan(adversarial=kind)
    losses = our_step(ours, sgd(ours, 0.01), pair())
    assert all(torch.tensor(value).isfinite() for value in losses.values())
    assert ("discriminators/penalty_A" in losses) == (kind == "wgan-gp")


def test_several_discriminator_updates_follow_one_of_the_generators():
    names = [name for name, _ in terms_of(cyclegan(discriminator_updates=3), pair())]
    assert names == ["generators", "discriminators", "discriminators", "discriminators"]


def test_clamping_keeps_discriminator_weights_in_bounds_after_each_update():
    ours = cyclegan(adversarial="wgan", clamp=0.01)
    our_step(ours, sgd(ours, 10.0), pair())
    assert max(p.abs().max().item() for d in (ours.D_A, ours.D_B) for p in d.parameters()) <= 0.01 + 1e-9
    assert max(p.abs().max().item() for p in ours.G_AB.parameters()) > 0.01


@pytest.mark.parametrize(("side", "target"), [("A", "B"), ("B", "A")])
def test_one_sided_training_has_one_discriminator_and_one_cycle(side: str, target: str):
    ours = cyclegan(sides=side)
    expected = {f"adversarial_{target}", f"cycle_{side}", f"identity_{target}"}
    assert terms_of(ours, pair()) == [("generators", expected), ("discriminators", {target})]
    assert hasattr(ours, f"D_{target}") and not hasattr(ours, f"D_{side}")


def test_without_identity_nothing_is_computed_for_it():
    assert all("identity" not in term for _, terms in terms_of(cyclegan(identity=0), pair()) for term in terms)


def test_weights_scale_their_terms():
    terms = dict(losses_of(cyclegan(), pair()))["generators"]
    doubled = dict(losses_of(cyclegan(cycle=20, identity=2.5), pair()))["generators"]
    assert doubled["cycle_A"].item() == pytest.approx(2 * terms["cycle_A"].item())
    assert doubled["identity_B"].item() == pytest.approx(terms["identity_B"].item() / 2)


def test_each_direction_may_have_its_own_cycle_weight():
    plain = dict(losses_of(cyclegan(cycle=1), pair()))["generators"]
    terms = dict(losses_of(cyclegan(cycle={"A": 10, "B": 5}), pair()))["generators"]
    assert terms["cycle_A"].item() == pytest.approx(10 * plain["cycle_A"].item())
    assert terms["cycle_B"].item() == pytest.approx(5 * plain["cycle_B"].item())
    with pytest.raises(ConfigError, match=r"algorithm\.cycle: a weight for A and one for B"):
        cyclegan(cycle={"A": 10})


def test_r1_comes_every_few_updates_and_so_many_times_as_heavy():
    ours, always = cyclegan(r1=2, r1_every=3, pool=0), cyclegan(r1=2, pool=0)
    terms = [dict(losses_of(ours, pair()))["discriminators"] for _ in range(4)]
    assert [set(term) for term in terms] == [
        {"A", "B", "r1_A", "r1_B"},
        {"A", "B"},
        {"A", "B"},
        {"A", "B", "r1_A", "r1_B"},
    ]
    each = dict(losses_of(always, pair()))["discriminators"]
    assert terms[0]["r1_A"].item() == pytest.approx(3 * each["r1_A"].item(), rel=1e-4)


def test_a_multiscale_discriminator_trains():
    ours = cyclegan({"discriminator": {"name": "multiscale", "width": 4, "layers": 1, "scales": 2}}, r1=1)
    assert all(torch.tensor(value).isfinite() for value in our_step(ours, sgd(ours, 0.01), pair()).values())


def masks() -> dict[str, torch.Tensor]:
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 8:20, 4:] = 1
    return {"A_mask": mask}


def test_outside_the_mask_the_translation_is_the_picture_itself():
    ours, batch = cyclegan(), {**pair(), **masks()}
    seen = []
    ours.D_B.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    list(losses_of(ours, batch))
    inside = batch["A_mask"].bool().expand(-1, 3, -1, -1)
    for fake in (batch["fake_B"], seen[0]):
        assert torch.equal(fake[~inside], batch["A"][~inside])
        assert torch.equal(fake[inside], ours.G_AB(batch["A"])[inside])
    assert torch.equal(batch["fake_A"], ours.G_BA(batch["B"]))  # B has no masks


def test_the_cycle_loss_is_a_mean_inside_the_mask():
    ours, batch = cyclegan(cycle=3, identity=2), {**pair(), **masks()}
    terms = next(iter(losses_of(ours, batch)))[1]
    inside = batch["A_mask"].bool().expand(-1, 3, -1, -1)
    back = ours.G_BA(batch["fake_B"])
    assert terms["cycle_A"].item() == pytest.approx(3 * (back - batch["A"])[inside].abs().mean().item(), rel=1e-5)
    same = ours.G_BA(batch["A"])
    assert terms["identity_A"].item() == pytest.approx(2 * (same - batch["A"])[inside].abs().mean().item(), rel=1e-5)


def test_masks_of_ones_change_nothing_and_of_zeros_leave_no_gradient():
    plain = next(iter(losses_of(cyclegan(), pair())))[1]
    ones = {f"{d}_mask": torch.ones(2, 1, 32, 32) for d in "AB"}
    masked = next(iter(losses_of(cyclegan(), {**pair(), **ones})))[1]
    assert {k: v.item() for k, v in masked.items()} == pytest.approx({k: v.item() for k, v in plain.items()})
    ours = cyclegan()
    nothing = next(iter(losses_of(ours, {**pair(), "A_mask": torch.zeros(2, 1, 32, 32)})))[1]
    assert nothing["cycle_A"].item() == nothing["identity_A"].item() == 0
    loss = nothing["cycle_A"] + nothing["identity_A"] + nothing["adversarial_B"]
    parameters = [*ours.G_AB.parameters(), *ours.G_BA.parameters()]
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, parameters, materialize_grads=True))


@pytest.mark.parametrize("option", ["mask", "test_mask"])
def test_masks_want_as_many_channels_on_both_sides(tmp_path, option):
    data = {"A": {"channels": 1, option: str(tmp_path)}}
    with pytest.raises(ConfigError, match=rf"data\.A\.{option}: A and B must have as many channels"):
        cyclegan({"data": data}, identity=0)


@pytest.mark.parametrize("option", ["mask", "test_mask"])
def test_an_algorithm_without_masks_refuses_them(tmp_path, option):
    config = load_config({"name": "x", "algorithm": {"name": "cut"}, "data": {"B": {option: str(tmp_path)}}})
    with pytest.raises(ConfigError, match=rf"data\.B\.{option}: cut takes no masks; cyclegan, ugatit would"):
        build_algorithm(config)


def test_domains_may_differ_in_channels():
    ours = cyclegan({"data": {"A": {"channels": 1}}}, identity=0)
    batch = {"A": torch.rand(1, 1, 32, 32), "B": torch.rand(1, 3, 32, 32)}
    our_step(ours, sgd(ours, 0.01), batch)
    assert ours.G_AB(batch["A"]).shape == batch["B"].shape


def test_generator_gradients_do_not_touch_the_discriminators_and_the_other_way_round():
    ours, batch = cyclegan(), pair()
    for name, terms in losses_of(ours, batch):
        own = [p for network in ours.trained()[name] for p in network.parameters()]
        sum(terms.values()).backward(inputs=own)
        others = [p for n, networks in ours.trained().items() if n != name for x in networks for p in x.parameters()]
        assert all(p.grad is None for p in others)
        for p in own:
            p.grad = None


def test_one_direction_is_done_with_before_the_next_is_computed():
    """So that memory is that of one."""
    ours, batch = cyclegan(), pair()
    _, parts = next(ours.losses(batch))
    calls = []
    for name in ("G_AB", "G_BA", "D_A", "D_B"):
        getattr(ours, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    for part, expected in zip(parts, (["G_AB", "D_B", "G_BA"], ["G_BA", "D_A", "G_AB"]), strict=True):
        calls.clear()
        sum(part().values()).backward()  # would fail for a graph that the other one shares
        assert calls == expected


def test_cycle_loss_is_what_the_paper_says():
    ours, batch = cyclegan(cycle=3, identity=0), pair()
    terms = dict(losses_of(ours, batch))["generators"]
    back = ours.G_BA(ours.G_AB(batch["A"]))
    assert terms["cycle_A"].item() == pytest.approx(3 * F.l1_loss(back, batch["A"]).item(), rel=1e-5)
