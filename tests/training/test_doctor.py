"""The doctor finds each failure that was made on purpose, and says nothing about runs that learn."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from cyclegan.config import load_config
from cyclegan.inference.checkpoints.generator_file import load_generator
from cyclegan.losses.structure import luminance
from cyclegan.training import doctor as doctors
from cyclegan.training.doctor import Doctor, new_doctor
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from cyclegan.training.samples import sample_images
from cyclegan.training.symptoms import brightness_correlation, contrast_share, has_won, jumps, variety


def healthy_line(noise: random.Random) -> dict[str, float]:
    """One line as the journal writes it, with the levels and the noise of a least-squares run."""

    def around(level: float) -> float:
        return level * noise.uniform(0.7, 1.3)

    return {
        "epoch": 0,
        "step": 0,
        "generators": around(6.5),
        "generators/adversarial_A": around(0.45),
        "generators/adversarial_B": around(0.45),
        "discriminators": around(0.35),
        "discriminators/A": around(0.17),
        "discriminators/B": around(0.17),
        "lr/generators": 2e-4,
        "speed/waiting_for_data": around(0.04),
    }


def remarks_on(doctor: Doctor, changes: dict[str, float], start: int = 0, lines: int = 60) -> list[doctors.Remark]:
    """What a doctor says to lines of 50 updates each, healthy but for the changes."""
    noise = random.Random(start)
    said = []
    for number in range(start, start + lines):
        images = 50 * (number + 1)
        said += doctor.read(images, images, {**healthy_line(noise), "epoch": images / 100, **changes})
    return said


def kinds(remarks: list[doctors.Remark]) -> list[str]:
    return [remark.kind for remark in remarks]


@pytest.fixture
def pictures() -> torch.Tensor:
    """Six smooth pictures with colours and dark and light areas."""
    coarse = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, 32, mode="bilinear").tanh()


# ---- curves


def test_healthy_curves_get_no_remark():
    assert remarks_on(Doctor("lsgan", decay_starts=15), {}) == []


@pytest.mark.parametrize(
    ("kind", "adversarial", "changes"),
    [
        ("saturated", "lsgan", {"discriminators/B": 0.003, "generators/adversarial_B": 0.99}),
        ("saturated", "vanilla", {"discriminators/B": 0.005, "generators/adversarial_B": 6.0}),
        ("saturated", "hinge", {"discriminators/B": 0.0, "generators/adversarial_B": 1.4}),
        ("starving", "lsgan", {"speed/waiting_for_data": 0.55}),
    ],
)
def test_a_failure_in_the_curves_is_remarked_once(kind, adversarial, changes):
    (remark,) = remarks_on(Doctor(adversarial), changes)
    assert remark.kind == kind
    assert f"docs/reading-the-curves.md#{kind}" in remark.message
    assert any(f"{value:.3g}" in remark.message or f"{value:.0%}" in remark.message for value in changes.values())


def test_a_wasserstein_critic_may_separate_as_well_as_it_can():
    assert remarks_on(Doctor("wgan"), {"discriminators/B": -40.0, "generators/adversarial_B": 80.0}) == []


def test_scores_of_a_wasserstein_critic_may_drift():
    doctor = Doctor("wgan-gp")
    assert [remarks_on(doctor, {"generators": 10.0 * n}, start=10 * n, lines=10) for n in range(20)] == [[]] * 20


def test_losses_that_grow_without_bound_are_remarked():
    doctor = Doctor("lsgan")
    assert remarks_on(doctor, {}) == []
    (remark,) = remarks_on(doctor, {"generators": 400.0}, start=60, lines=6)
    assert remark.kind == "diverging"
    assert "400" in remark.message


def test_one_wild_line_is_no_divergence():
    doctor = Doctor("lsgan")
    remarks_on(doctor, {})
    assert remarks_on(doctor, {"generators": 1e6}, start=60, lines=1) == []
    assert remarks_on(doctor, {}, start=61) == []


def test_a_jump_is_looked_for_where_the_decay_begins():
    higher = {"generators": 12.0}
    for decay_starts, expected in ((30, ["decay-jump"]), (300, [])):
        doctor = Doctor("lsgan", decay_starts)
        assert remarks_on(doctor, {"generators": 6.0}) == []
        assert kinds(remarks_on(doctor, higher, start=60)) == expected


def test_loader_workers_that_start_are_not_starving():
    doctor = Doctor()
    remarks_on(doctor, {"speed/waiting_for_data": 1.0}, lines=1)
    assert remarks_on(doctor, {}, start=1) == []


def test_a_remark_is_made_again_only_after_it_went_away():
    doctor = Doctor("lsgan")
    won = {"discriminators/B": 0.003, "generators/adversarial_B": 0.99}
    assert kinds(remarks_on(doctor, won)) == ["saturated"]
    assert remarks_on(doctor, won, start=60) == []
    assert remarks_on(doctor, {}, start=120) == []
    assert kinds(remarks_on(doctor, won, start=180)) == ["saturated"]


def test_a_resumed_doctor_says_what_an_uninterrupted_one_says():
    won = {"discriminators/B": 0.003, "generators/adversarial_B": 0.99}
    straight = Doctor("lsgan")
    expected = remarks_on(straight, won, lines=10) + remarks_on(straight, won, start=10)
    for stop in (1, 7, 10):
        first = Doctor("lsgan")
        said = remarks_on(first, won, lines=stop)
        buffer = io.BytesIO()
        torch.save(first.state_dict(), buffer)
        buffer.seek(0)
        second = Doctor("lsgan")
        second.load_state_dict(torch.load(buffer, weights_only=True))
        said += remarks_on(second, won, start=stop, lines=10 - stop) + remarks_on(second, won, start=10)
        assert [(r.kind, r.images, r.since) for r in said] == [(r.kind, r.images, r.since) for r in expected]


# ---- pictures

FAILURES = {
    "copying": lambda images: images + 0.01 * torch.randn_like(images),
    "inverted": lambda images: -images,
    "collapsed": lambda images: images[:1].roll(9, 3) + 0.02 * images,
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_generator_that_fails_is_remarked_once(pictures, kind):
    doctor, said = Doctor(), []
    for images in range(10_000, 20_000, 1000):
        said += doctor.look(images, images, {"AtoB": (pictures, FAILURES[kind](pictures))})
    (remark,) = said
    assert remark.kind == kind
    assert remark.message.startswith("AtoB")
    assert remark.since == 10_000 < remark.images


def test_a_generator_that_still_is_the_identity_is_left_alone(pictures):
    doctor = Doctor()
    assert [doctor.look(images, images, {"AtoB": (pictures, pictures)}) for images in range(0, 10_000, 500)] == [
        []
    ] * 20


@pytest.mark.parametrize("kind", FAILURES)
def test_nothing_is_said_before_the_generators_settled(pictures, kind):
    sheets = {"AtoB": (pictures, FAILURES[kind](pictures))}
    doctor = Doctor()
    assert [doctor.look(64 * updates, updates, sheets) for updates in range(0, 1000, 100)] == [[]] * 10


def test_a_generator_that_changes_colours_and_textures_is_healthy(pictures):
    stripes = 0.4 * torch.sign(torch.sin(torch.arange(32.0)))
    fake = (0.8 * pictures[:, [2, 0, 1]] + stripes).clamp(-1, 1)
    doctor = Doctor()
    assert [doctor.look(20_000 + i, 20_000, {"AtoB": (pictures, fake)}) for i in range(5)] == [[]] * 5


def test_pictures_of_one_channel_and_of_three_are_compared_by_brightness(pictures):
    grey = luminance(pictures)
    assert contrast_share(pictures, grey) == pytest.approx(0, abs=1e-6)
    assert brightness_correlation(pictures, -grey) == pytest.approx(-1, abs=1e-5)


def test_checks_have_the_values_computed_by_hand():
    real = torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    assert variety(real, 0.5 * real) == pytest.approx(0.5)
    assert variety(real[:1], real[:1]) == 1.0  # nothing to compare with
    halves = torch.cat([torch.full((1, 1, 16, 8), -0.5), torch.full((1, 1, 16, 8), 0.5)], 3)
    assert contrast_share(halves, halves + 0.1) == pytest.approx(0.2)
    assert brightness_correlation(halves, halves.flip(3)) == pytest.approx(-1)
    assert has_won(0.001, 1.0, "lsgan") and not has_won(0.001, 0.5, "lsgan") and not has_won(0.1, 1.0, "lsgan")
    assert jumps([2.0, 2.0, 2.1], [4.0, 4.0]) and not jumps([1.0, 3.0, 2.0], [3.5, 3.5])


KINDS = [*FAILURES, "diverging", "saturated", "decay-jump", "starving"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_remark_has_its_chapter(kind):
    page = Path(doctors.__file__).parents[2] / doctors.PAGE
    assert f"\n### {kind}\n" in page.read_text(encoding="utf-8")


# ---- real runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A toy task: blue discs on a dark ground, and orange discs on a lighter one."""
    root = tmp_path_factory.mktemp("toy")
    noise = random.Random(0)
    for domain, ground, colour in (("A", 30, (90, 150, 250)), ("B", 90, (250, 190, 110))):
        for split, count in (("train", 24), ("test", 6)):
            (root / f"{split}{domain}").mkdir()
            for number in range(count):
                picture = Image.new("RGB", (32, 32), tuple(ground + noise.randrange(40) for _ in range(3)))
                x, y, radius = noise.randrange(4, 28), noise.randrange(4, 28), noise.randrange(4, 10)
                ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
                picture.save(root / f"{split}{domain}" / f"{number}.png")
    return root


def trained(folder, results, updates, **options):
    """A finished run: its configuration, and what the doctor says to its curves and, three times, to its pictures."""
    config = load_config(
        {
            "name": "toy",
            "results": str(results),
            "generator": {"name": "resnet", "width": 4, "blocks": 1, **options.pop("generator", {})},
            "discriminator": {"name": "patch", "width": 8, "layers": 2},
            "data": {"root": str(folder), "load_size": 32, "crop_size": 32, "workers": 0},
            "training": {"epochs": updates // 48, "decay_epochs": updates // 48, "max_steps": updates},
            "logging": {"log_every": 5, "trackers": []},
            **options,
        }
    )
    train(config)
    doctor, said = new_doctor(config), []
    for line in read_metrics(config.folder / "log" / "metrics.jsonl"):
        line["speed/waiting_for_data"] = 0.0  # says something about this machine, not about the run
        said += doctor.read(line["images"], line["step"], line)
    for _ in range(3):
        said += doctor.look(line["images"], line["step"], translated(config))
    return said


def translated(config):
    reals = sample_images(config)
    generators = {
        direction: load_generator(config.folder / f"{direction}.safetensors") for direction in ("AtoB", "BtoA")
    }
    with torch.no_grad():
        return {way: (reals[way[0]], generator(reals[way[0]])) for way, generator in generators.items()}


def test_a_short_run_that_learns_gets_no_remark(folder, tmp_path, monkeypatch):
    """With bins ten times shorter, and so noisier, than in earnest."""
    monkeypatch.setattr(doctors, "BIN_UPDATES", 5)
    monkeypatch.setattr(doctors, "SETTLED_UPDATES", 100)
    monkeypatch.setattr(doctors, "COPYING_IMAGES", 100)
    assert trained(folder, tmp_path, updates=144) == []


@pytest.mark.slow
@pytest.mark.parametrize("adversarial", ["lsgan", "vanilla", "hinge", "wgan-gp"])
def test_a_run_that_learns_gets_no_remark(folder, tmp_path, adversarial):
    assert trained(folder, tmp_path, updates=1300, algorithm={"name": "cyclegan", "adversarial": adversarial}) == []


@pytest.mark.slow
def test_generators_that_cannot_leave_the_identity_lose_to_their_discriminators(folder, tmp_path):
    """With the global skip, cycle and identity are at their minimum from the start, and these domains are far apart."""
    said = trained(folder, tmp_path, updates=1300, generator={"skip": True})
    assert kinds(said) == ["saturated", "saturated"]
