"""`speed: auto` chooses by device, says so, keeps it, and never overrides what is given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from cyclegan import devices
from cyclegan.algorithms import complete_config
from cyclegan.config import Config, load_config
from cyclegan.training import auto
from cyclegan.training.launch import found_device
from cyclegan.training.loop import train
from tests.conftest import merged

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A CPU with AMX, and an Ampere with Triton."""
    monkeypatch.setattr(devices, "cpu_features", lambda: {"sse2", "amx_bf16"})
    monkeypatch.setattr(auto, "can_compile", lambda _: True)
    monkeypatch.setattr(auto, "cpu_features", lambda: devices.cpu_features())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


def chosen(options: dict, device: torch.device = CPU, *overrides: str, afresh: bool = False) -> Config:
    config = complete_config(load_config({"name": "x", "speed": "auto", **options}, overrides))
    return auto.with_speed(config, device, "none" if afresh else "auto")[0]


def test_devices_get_what_is_fast_on_them():
    cpu, gpu = chosen({}).speed, chosen({}, GPU).speed
    assert (cpu.precision, cpu.channels_last, cpu.compile) == ("bf16", True, False)
    assert (gpu.precision, gpu.channels_last, gpu.compile) == ("bf16", True, True)


def test_devices_without_fast_bf16_stay_plain(monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: {"sse2", "avx"})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    for speed in (chosen({}).speed, chosen({}, GPU).speed):
        assert speed.precision == "no" and not speed.channels_last


def test_float32_with_avx512_lies_in_channels_last(monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: {"sse2", "avx2", "avx512f"})
    speed = chosen({}).speed
    assert speed.precision == "no" and speed.channels_last
    assert not chosen({"algorithm": {"name": "adain"}}).speed.channels_last


@pytest.mark.parametrize(("features", "channels_last"), [({"avx2"}, False), ({"avx2", "avx512f"}, True)])
def test_networks_with_nothing_to_multiply_less_lie_as_is_fast_for_plain_convolutions(
    features: set[str], channels_last: bool, monkeypatch
):
    monkeypatch.setattr(devices, "cpu_features", lambda: features)
    speed = chosen({"generator": {"name": "resnet", "width": 32, "downs": 1}}).speed
    assert not speed.winograd and speed.channels_last == channels_last


@pytest.mark.parametrize(
    ("features", "winograd", "in_float32"),
    [
        ({"GenuineIntel", "avx2"}, True, True),
        ({"GenuineIntel", "avx2", "avx512f", "avx512_bf16"}, True, True),
        ({"GenuineIntel", "avx2", "avx512f", "amx_bf16"}, False, True),  # bf16
        ({"GenuineIntel", "avx"}, False, False),
        ({"AuthenticAMD", "avx2"}, True, True),
        ({"AuthenticAMD", "avx2", "avx512f", "avx512_bf16"}, False, True),  # bf16
    ],
)
def test_float32_multiplies_less(features: set[str], winograd: bool, in_float32: bool, monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: features)
    assert devices.has_fast_winograd(CPU) == in_float32 and not devices.has_fast_winograd(GPU)
    speed = chosen({}).speed
    assert speed.winograd == winograd and (speed.channels_last or not winograd)
    style = chosen({"algorithm": {"name": "adain"}}).speed  # float32 everywhere
    assert style.winograd == in_float32 and not style.channels_last
    assert not chosen({}, GPU).speed.winograd
    assert chosen({}, CPU, "speed.precision=no").speed.winograd == in_float32


def test_the_faster_plain_sums_are_the_more_places_it_takes(monkeypatch):
    intel, zen_4, zen_5 = (
        {vendor, family, "avx512f"}
        for vendor, family in (("GenuineIntel", "6"), ("AuthenticAMD", "25"), ("AuthenticAMD", "26"))
    )
    for features, places in ((set(), 1024), (intel, 1024), (zen_4, 1024), (zen_5, 2048)):
        monkeypatch.setattr(devices, "cpu_features", lambda features=features: features)
        assert devices.least_winograd_places(CPU) == places


@pytest.mark.parametrize("given", ["precision=bf16", "precision=fp64", "compile=true"])
def test_winograd_gives_way_to_what_options_give(given: str, options: dict, monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: {"GenuineIntel", "avx2"})
    speed = chosen({}, CPU, f"speed.{given}").speed
    assert not speed.winograd and (speed.precision in given or speed.compile)
    begun = Path(options["results"]) / "x"
    begun.mkdir(parents=True)
    kept = {"choice": "auto", "precision": "no", "winograd": True}
    (begun / "config.yaml").write_text(yaml.safe_dump({"speed": kept}), encoding="utf-8")
    assert chosen({"results": options["results"]}).speed.winograd
    assert not chosen({"results": options["results"]}, CPU, f"speed.{given}").speed.winograd
    assert chosen({}, CPU, f"speed.{given}", "speed.winograd=true").speed.winograd  # for check_speed to refuse


def test_winograd_that_is_asked_for_gets_what_it_needs(options: dict):
    """The processor has fast bf16, which would be chosen, and was when another run began."""
    begun = Path(options["results"]) / "x"
    begun.mkdir(parents=True)
    kept = {"choice": "auto", "precision": "bf16", "channels_last": True, "compile": True}
    (begun / "config.yaml").write_text(yaml.safe_dump({"speed": kept}), encoding="utf-8")
    goes_on = chosen({"results": options["results"]}, CPU, "speed.winograd=true").speed
    assert (goes_on.winograd, goes_on.precision, goes_on.compile) == (True, "no", False)
    speed = chosen({}, CPU, "speed.winograd=true").speed
    assert speed.winograd and speed.precision == "no" and speed.channels_last
    assert chosen({}, GPU, "speed.winograd=true").speed.precision == "bf16"
    assert chosen({}, CPU, "speed.winograd=false").speed.precision == "bf16"


@pytest.mark.parametrize("algorithm", [{"r1": 1}, {"adversarial": "wgan-gp"}])
def test_gradients_of_gradients_stay_plain(algorithm: dict):
    speed = chosen({"algorithm": algorithm}, GPU).speed
    assert (speed.precision, speed.compile) == ("no", False)


@pytest.mark.parametrize("name", auto.UNTRIED)
def test_what_was_not_tried_in_bf16_stays_plain(name: str):
    assert chosen({"algorithm": {"name": name}}).speed.precision == "no"


def test_pictures_of_many_sizes_are_not_compiled():
    assert not chosen({"data": {"resize": "none"}}, GPU).speed.compile
    assert not chosen({"deterministic": True}, GPU).speed.compile


def test_nothing_is_compiled_without_a_compiler(monkeypatch):
    monkeypatch.setattr(auto, "can_compile", lambda _: False)
    assert not chosen({}, GPU).speed.compile


def test_what_is_given_stays():
    speed = chosen({}, GPU, "speed.compile=false", "speed.precision=no").speed
    assert (speed.precision, speed.compile, speed.channels_last) == ("no", False, True)
    assert chosen({}, GPU, "data.workers=3").data.workers == 3


def test_workers_are_chosen_where_none_are_given(monkeypatch):
    monkeypatch.setattr(auto, "new_workers", lambda device: {"cpu": 6, "cuda": 7}[device.type])
    assert (chosen({}).data.workers, chosen({}, GPU).data.workers) == (6, 7)


def test_what_was_asked_of_accelerate_launch_stays(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert chosen({}, GPU).speed.precision == "fp16"


def test_plain_is_one_word():
    config = load_config({"name": "x", "speed": "auto"}, ["speed=plain"])
    assert auto.with_speed(config, GPU) == (config, None) and config == load_config({"name": "x"})


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(auto.os, "sched_getaffinity", lambda _: range(16), raising=False)
    assert (auto.new_workers(CPU), auto.new_workers(GPU)) == (1, 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert auto.new_workers(GPU) == 3
    monkeypatch.setattr(auto.os, "sched_getaffinity", lambda _: range(4), raising=False)
    assert auto.new_workers(GPU) == 1


def test_a_run_says_and_keeps_what_it_chose(options: dict, monkeypatch, capsys):
    short = merged(options, training={"max_images": 2}, logging={"samples": 0})
    folder = train({**short, "speed": "auto"})
    assert (
        "speed: auto on cpu with amx_bf16: precision=bf16, channels_last=True, data.workers=0"
        in capsys.readouterr().out
    )
    recorded = load_config(folder / "config.yaml")
    assert (recorded.speed.choice, recorded.speed.precision) == ("auto", "bf16")
    assert auto.with_speed(recorded, GPU)[0] == recorded  # everything is given there
    monkeypatch.setattr(devices, "cpu_features", set)  # another machine
    train(merged({**short, "speed": "auto"}, training={"max_images": 4}))
    assert load_config(folder / "config.yaml").speed.precision == "bf16"
    said = capsys.readouterr().out
    assert "speed.precision" not in said and "speed: auto as the run began: precision=bf16" in said
    again = {"results": options["results"], "name": "tiny"}
    assert chosen(again).speed.precision == "bf16" and chosen(again, afresh=True).speed.precision == "no"


@pytest.mark.parametrize(
    "text", ["", "{}", "speed: [", "- speed", "speed: auto", "speed: {precision: fp64}", "name: \xff"]
)
@pytest.mark.parametrize("file", ["config.yaml", "manifest.json"])
def test_where_nothing_was_kept_it_is_chosen_anew(file: str, text: str, options: dict):
    """Somebody wrote the file by hand, say."""
    begun = Path(options["results"]) / "x"
    begun.mkdir(parents=True)
    (begun / file).write_text(text, encoding="latin-1")
    assert chosen({"results": options["results"]}).speed == chosen({}).speed


def test_what_was_kept_is_read_as_options_are(options: dict):
    """By YAML 1.1, which has the plain word for false, the precision would be that."""
    begun = Path(options["results"]) / "x"
    begun.mkdir(parents=True)
    (begun / "config.yaml").write_text("speed: {choice: auto, precision: no, channels_last: true}")
    speed = chosen({"results": options["results"]}).speed
    assert (speed.precision, speed.channels_last) == ("no", True)


@pytest.mark.parametrize("part", ["", "state/000000002"])
def test_a_run_that_goes_on_from_another_keeps_what_that_one_chose(options: dict, part: str, monkeypatch, capsys):
    short = merged({**options, "speed": "auto"}, training={"max_images": 2}, logging={"samples": 0})
    other = train(short) / part
    monkeypatch.setattr(devices, "cpu_features", set)  # another machine
    longer = merged({**short, "name": "branch"}, training={"max_images": 4})
    folder = train(longer, resume=str(other))
    assert load_config(folder / "config.yaml").speed.precision == "bf16"
    assert "speed.precision" not in capsys.readouterr().out
    assert load_config(train(longer, resume="none") / "config.yaml").speed.precision == "no"


def test_a_run_that_was_plain_is_told_of_its_new_precision(options: dict, capsys):
    short = merged(options, training={"max_images": 2}, logging={"samples": 0})
    train(short)
    train(merged({**short, "speed": "auto"}, training={"max_images": 4}))
    assert "speed.precision: None -> bf16" in capsys.readouterr().out


def test_a_device_is_named_with_what_makes_it_fast(monkeypatch):
    assert auto.with_speed(load_config({"name": "x", "speed": "auto"}), GPU)[1].startswith(
        "speed: auto on NVIDIA A100:"
    )
    monkeypatch.setattr(devices, "cpu_features", lambda: {"AuthenticAMD", "avx512f", "avx512_bf16", "amx_bf16"})
    assert auto._name(CPU) == "cpu with amx_bf16, avx512_bf16"
    monkeypatch.setattr(devices, "cpu_features", lambda: {"GenuineIntel", "avx512_bf16"})  # not fast
    assert auto._name(CPU) == "cpu"


@pytest.mark.parametrize(
    ("features", "fast"),
    [
        ({"GenuineIntel", "avx512_bf16", "amx_bf16"}, True),
        ({"AuthenticAMD", "avx512_bf16"}, True),
        ({"GenuineIntel", "avx512_bf16"}, False),  # slower than float32
        ({"AuthenticAMD", "avx2"}, False),
        (set(), False),  # unknown
    ],
)
def test_a_processor_is_known_by_vendor_and_flags(features: set[str], fast: bool, monkeypatch):
    monkeypatch.setattr(devices, "cpu_features", lambda: features)
    assert devices.has_fast_bf16(CPU) == fast
    assert not devices.has_fast_bf16(torch.device("mps"))


def test_the_features_of_this_machine_are_read(monkeypatch):
    monkeypatch.undo()
    if Path("/proc/cpuinfo").exists() and "flags" in (told := Path("/proc/cpuinfo").read_text()):
        assert devices.cpu_features() & {"sse2", "fp"}
        family = re.search(r"^cpu family\s*: (\d+)$", told, re.MULTILINE)
        assert family is None or family[1] in devices.cpu_features()


@pytest.mark.parametrize(
    ("family", "computes_with", "winograd", "places"),
    [(25, "AVX2", True, 1024), (25, "AVX512", True, 1024), (26, "AVX512", True, 2048), (23, "NO AVX", False, 1024)],
)
def test_elsewhere_than_on_linux_it_is_what_pytorch_computes_with(
    family: int, computes_with: str, winograd: bool, places: int, monkeypatch
):
    monkeypatch.undo()
    monkeypatch.setattr(devices, "Path", lambda _: Path("nowhere"))
    monkeypatch.setattr("platform.processor", lambda: f"AMD64 Family {family} Model 33 Stepping 0, AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: computes_with)
    assert devices.has_fast_winograd(CPU) == winograd and devices.least_winograd_places(CPU) == places
    assert not devices.has_fast_bf16(CPU)


def test_a_launch_on_the_cpu_chooses_for_it(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    assert found_device() == torch.device("cuda")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # accelerate launch --cpu
    assert found_device() == CPU
