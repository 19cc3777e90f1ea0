"""Every switch of precision and speed trains as plain float32 does, within the tolerances of docs/training.md."""

from __future__ import annotations

from functools import partialmethod
from itertools import product
from pathlib import Path

import pytest
import torch
from accelerate.state import PartialState

from cyclegan.algorithms import complete_config
from cyclegan.config import ConfigError, load_config
from cyclegan.devices import tf32
from cyclegan.networks import winograd
from cyclegan.networks.winograd import winograd_conv2d
from cyclegan.training import trainer
from cyclegan.training.chronicle import evaluating
from cyclegan.training.journal import read_metrics
from cyclegan.training.launch import found_device, new_accelerator
from cyclegan.training.loop import train
from cyclegan.training.speed import can_compile, check_speed
from tests.conftest import merged
from tests.training.test_loop import weights_of

# Relative: of the losses, and of the way that the weights went. SGD, because Adam makes full steps out of rounding.
TOLERANCES = {
    # 9e-3 measured: a single value, 4e-6 before a ReLU, falls to its other side (docs/training.md).
    "no": (1e-4, 2e-2),
    "fp64": (1e-4, 2e-2),  # 1e-3 measured with AVX2 only: float32's value that falls to the other side
    # Ten bits of mantissa, emulated on a CPU: losses 0.015 off and the way 0.28 (tf32), 0.012 and 0.32 (fp16).
    "tf32": (3e-2, 0.5),
    "fp16": (3e-2, 0.5),
    "bf16": (2e-2, 0.7),
}
WITHIN_FP64 = (1e-9, 1e-6)  # what else is switched on makes no difference but rounding
TRAINING = {
    "training": {"accumulate": 2, "clip": 1.0, "ema": 0.5, "batches_per_epoch": 4, "decay_epochs": 0},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "init": {"gain": 0.05},
}
SWITCHES = ("channels_last", "checkpointing", "compile")
COMBINATIONS = [
    pytest.param(precision, switches, marks=[pytest.mark.slow] if switches[2] else [])
    for precision, switches in product(("no", "bf16", "fp64"), product((False, True), repeat=3))
]
ON_A_GPU = [("fp16", switches) for switches in product((False, True), repeat=3)] + [("tf32", (False, False, False))]
MODES = ("reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def compare(
    options: dict,
    precision: str,
    switches: tuple[bool, bool, bool],
    mode: str | None = None,
    winograd: bool = False,
    **changes: dict,
) -> None:
    """Train 4 updates (8 images) with and without the switches, from the same weights; in fp64 both are."""
    options = merged(options, **TRAINING, **changes)
    speed = {"tf32": True} if precision == "tf32" else {"precision": precision}
    within = precision == "fp64" and any(switches)
    still = {"name": "sgd", "lr": 1e-12}
    start = weights_of(train(merged({**options, "name": "start"}, training={"max_images": 2}, optimizer=still)))
    plain = train({**options, "name": "plain", "speed": dict(speed) if within else {}})
    speed |= {**dict(zip(SWITCHES, switches, strict=True)), "compile_mode": mode, "winograd": winograd}
    fast = train({**options, "name": "fast", "speed": speed})
    loss, way = WITHIN_FP64 if within else TOLERANCES[precision]
    for mine, theirs in zip(*(read_metrics(run / "log" / "metrics.jsonl") for run in (plain, fast)), strict=True):
        for name, value in mine.items():
            if not name.startswith("speed/"):
                assert theirs[name] == pytest.approx(value, rel=loss, abs=loss), name
    moved, apart, along = 0.0, 0.0, 0.0
    theirs = weights_of(fast)
    for name, value in weights_of(plain).items():
        own, other = (value - start[name]).double(), (theirs[name] - start[name]).double()
        moved += own.square().sum().item()
        apart += (own - other).square().sum().item()
        along += (own * other).sum().item()
    print(f"{precision} {switches}: weights {(apart / moved) ** 0.5:.1e}, along the plain way {along / moved:.3f}")
    assert moved > 0
    assert (apart / moved) ** 0.5 < way
    assert along / moved == pytest.approx(1, abs=way / 4)  # rounding goes in any direction, a wrong step along this one


@pytest.mark.parametrize(("precision", "switches"), COMBINATIONS)
def test_every_combination_trains_as_float32_does(precision: str, switches: tuple, options: dict):
    compare(options, precision, switches)


@pytest.mark.parametrize("switches", list(product((False, True), repeat=2)))
def test_winograds_convolutions_train_as_plain_ones_do(switches: tuple, options: dict, monkeypatch):
    calls = []
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 8)
    monkeypatch.setattr(trainer, "least_winograd_places", lambda _: 1)
    monkeypatch.setattr(winograd, "winograd_conv2d", lambda *given: (calls.append(given), winograd_conv2d(*given))[1])
    compare(options, "no", (*switches, False), winograd=True)
    assert calls


def test_winograd_without_a_convolution_that_fits_is_told(options: dict):
    with pytest.raises(ConfigError, match=r"speed\.winograd: no network here has 3x3 convolutions of 128 channels"):
        train({**options, "speed": {"winograd": True}})
    train(merged({**options, "speed": {"winograd": True, "choice": "auto"}}, training={"max_images": 2}))


@pytest.mark.parametrize("before", [False, True])
def test_a_run_goes_on_in_another_memory_layout(before: bool, options: dict):
    """Adam's momenta lie as the weights do, and fused Adam takes both as they lie."""
    layouts = [{"precision": "fp64", "channels_last": layout} for layout in (before, not before)]
    whole = train({**options, "name": "whole", "speed": layouts[0]})
    train(merged({**options, "name": "parts", "speed": layouts[0]}, training={"max_images": 8}))
    parts = train({**options, "name": "parts", "speed": layouts[1]})
    theirs = weights_of(parts)
    for name, value in weights_of(whole).items():
        if value.ndim == 4:  # biases before a norm have no gradient but rounding, of which Adam makes full steps
            assert torch.allclose(value, theirs[name], rtol=0, atol=1e-6), name


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "switches"), ON_A_GPU)
def test_every_combination_of_a_gpu_trains_as_float32_does(
    precision: str, switches: tuple, options: dict, monkeypatch: pytest.MonkeyPatch
):
    """PyTorch's first scale is too large for the discriminators' last bias: the first updates would be left out."""
    init = partialmethod(torch.amp.GradScaler.__init__, init_scale=1024.0)
    monkeypatch.setattr("torch.amp.GradScaler.__init__", init)
    compare(options, precision, switches)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp64"])
@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.slow if "no" in mode else pytest.mark.gpu) for mode in MODES]
)
def test_every_mode_of_compiling_trains_as_float32_does(mode: str, precision: str, options: dict):
    compare(options, precision, (True, False, True), mode)


@pytest.mark.parametrize(("mode", "batches"), [("max-autotune", 4), ("max-autotune-no-cudagraphs", 0)])
def test_graphs_are_told_where_a_batch_begins(mode: str, batches: int, options: dict, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("torch.compile", lambda forward, mode, dynamic: said.append(mode) or forward)
    monkeypatch.setattr("torch.compiler.cudagraph_mark_step_begin", lambda: said.append("batch"))
    training = {"accumulate": 2, "batches_per_epoch": 4, "epochs": 1, "decay_epochs": 0}
    train(merged({**options, "speed": {"compile": True, "compile_mode": mode}}, training=training))
    assert said == [mode] * 4 + ["batch"] * batches


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"speed": {"precision": "fp16"}}, "fp16 needs a GPU"),
        ({"speed": {"tf32": True}}, "tf32.*GPU"),
        ({"speed": {"tf32": True, "precision": "fp64"}}, "tf32.*fp64"),
        ({"speed": {"checkpointing": True}, "generator": {"name": "unet"}}, "checkpointing.*unet"),
        ({"speed": {"checkpointing": True}, "generator": {"name": "resnet", "norm": "batch"}}, "checkpointing.*batch"),
        ({"speed": {"compile_mode": "max-autotune"}}, "compile_mode.*max-autotune is for speed.compile=true"),
        ({"speed": {"compile": True, "compile_mode": "reduce-overhead"}}, "reduce-overhead.*NVIDIA GPU"),
        ({"speed": {"winograd": True, "precision": "bf16"}}, "winograd.*is for float32.*bf16"),
        ({"speed": {"winograd": True, "compile": True}}, "winograd.*compile"),
        ({"speed": {"compile": True}, "algorithm": {"adversarial": "wgan-gp"}}, "compile.*wgan-gp"),
        ({"speed": {"compile": True}, "algorithm": {"r1": 1}}, "compile.*r1"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict, expected: str, options: dict):
    with pytest.raises(ConfigError, match=expected):
        train({**options, **changes})


def test_winograd_on_a_gpu_is_told_unless_the_run_chose_it_on_a_cpu():
    config = complete_config(load_config({"name": "x", "speed": {"winograd": True}}))
    with pytest.raises(ConfigError, match=r"speed\.winograd: is for CPUs"):
        check_speed(config, torch.device("cuda"))
    config.speed.choice = "auto"
    check_speed(config, torch.device("cuda"))


@pytest.mark.parametrize(
    ("changes", "tried"), [({}, True), ({"data": {"resize": "none"}}, False), ({"deterministic": True}, False)]
)
def test_cudnn_tries_its_ways_in_training_where_pictures_have_one_size(changes: dict, tried: bool, options: dict):
    with new_accelerator(load_config(merged(options, **changes))):
        assert torch.backends.cudnn.benchmark == tried
        with evaluating({}):
            assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.benchmark == tried
    assert not torch.backends.cudnn.benchmark


def test_pytorchs_switches_are_after_a_run_as_they_were_before(options: dict):
    def found() -> tuple:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        parts = [part.fp32_precision for part in (matmul, cudnn.conv, cudnn.rnn)]
        return cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32, torch.get_deterministic_debug_mode(), *parts

    with tf32(True):
        before = found()
        with new_accelerator(load_config(merged(options, deterministic=True))):
            assert found()[:4] == (False, False, False, 2)
        assert found() == before and before[:4] == (False, True, True, 0)


def test_a_notebook_may_train_again_on_another_device(options: dict):
    with new_accelerator(load_config(options)):
        PartialState._shared_state["device"] = torch.device("meta")
    with new_accelerator(load_config(options)) as accelerator:
        assert accelerator.device == found_device()


@pytest.mark.parametrize("choice", ["plain", "auto"])
def test_fp8_of_accelerate_launch_is_refused_before_anything_is_written(choice: str, options: dict, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ConfigError, match=r"speed\.precision: .*fp8"):
        train({**options, "speed": choice})
    assert not (Path(options["results"]) / "tiny").exists()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_compiling_without_a_compiler_is_refused(device: str, monkeypatch):
    config = complete_config(load_config({"name": "x", "speed": {"compile": True}}))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"speed\.compile: no compiler here"):
        check_speed(config, torch.device(device))
    compilers_for_everything(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no Triton
    assert (can_compile(torch.device("cpu")), can_compile(torch.device("cuda"))) == (True, False)


def compilers_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (7, 5))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_compiler_without_pythons_headers_is_none(device: str, monkeypatch, tmp_path: Path):
    """All that torch.compile and Triton generate includes Python.h, which Debian has in a package of its own."""
    compilers_for_everything(monkeypatch)
    assert can_compile(torch.device(device))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    assert not can_compile(torch.device(device))


def test_gpus_that_are_too_old_for_triton_are_not_compiled_for(monkeypatch):
    compilers_for_everything(monkeypatch)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (6, 1))
    assert not can_compile(torch.device("cuda"))


@pytest.mark.parametrize("algorithm", [{"r1": 1}, {"adversarial": "wgan-gp"}])
def test_fp16_is_too_coarse_for_gradients_of_gradients_only(algorithm: dict):
    plain = {"name": "x", "speed": {"precision": "fp16"}}
    with pytest.raises(ConfigError, match=r"fp16.*r1"):
        check_speed(complete_config(load_config({**plain, "algorithm": algorithm})), torch.device("cuda"))
    check_speed(complete_config(load_config(plain)), torch.device("cuda"))


def test_an_update_of_several_batches_has_one_scale(options: dict, monkeypatch):
    """Though the scale grows after every step that did not overflow."""
    options = merged(options, **TRAINING)
    options["training"] = {**options["training"], "accumulate": 4, "clip": None}  # which unscales for fp16 only
    plain = weights_of(train({**options, "name": "plain"}))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    monkeypatch.setattr("accelerate.Accelerator.scaler", property(lambda _: scaler, lambda *_: None), raising=False)
    scaled = weights_of(train({**options, "name": "scaled"}))
    assert scaler.get_scale() == 32  # two updates
    for name, value in plain.items():
        assert torch.allclose(scaled[name], value, rtol=0, atol=1e-5), name


def test_a_precision_that_is_given_stands_above_accelerates(options: dict, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    config = complete_config(load_config({"name": "x", "speed": {"precision": "bf16"}}))
    check_speed(config, torch.device("cpu"))
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        check_speed(complete_config(load_config({"name": "x"})), torch.device("cpu"))
