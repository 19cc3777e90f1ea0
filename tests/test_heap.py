from __future__ import annotations

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cyclegan import heap
from cyclegan.heap import OWN_SETTINGS

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep or give back as they like"
)
FAULTS = """
import resource
from threading import Thread
from cyclegan.commands import run
from cyclegan.heap import give_back_freed_memory, keep_freed_memory

def compute(_):
    for turn in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b'.' * (96 * 2**20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return 0

def compute_in_a_thread(_):
    thread = Thread(target=compute, args=[None])
    thread.start()
    thread.join()
    return 0

"""


def faults(code: str, **environment: str) -> int:
    """Pages that the system had to bring when 96 MiB were filled for the sixth time, the last to say."""
    clean = {name: value for name, value in os.environ.items() if name not in (*OWN_SETTINGS, "GLIBC_TUNABLES")}
    command = [sys.executable, "-c", FAULTS + code]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def given_back() -> int:
    """Where nothing is kept: 24576 of 4 KiB."""
    count = faults("compute(None)")
    if count < 1000:
        pytest.skip("pages are huge here, or not counted")
    return count


@pytest.mark.parametrize("where", ["compute", "compute_in_a_thread"])
def test_a_command_keeps_what_it_frees(given_back: int, where: str):
    assert faults(f"run('a command', {where}, [])") < given_back / 20


def test_what_was_kept_can_be_given_back(given_back: int):
    code = "keep_freed_memory()\nb'.' * (96 * 2**20)\n"
    code += "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
    code += "{}\nb'.' * (96 * 2**20)\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    assert faults(code.format("give_back_freed_memory()")) > given_back / 2 > 10 * faults(code.format(""))


@pytest.mark.parametrize(
    "setting",
    [
        {"MALLOC_MMAP_THRESHOLD_": "65536"},
        {"MALLOC_TRIM_THRESHOLD_": "65536"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"},
    ],
)
def test_settings_of_malloc_in_the_environment_stand(given_back: int, setting: dict[str, str]):
    assert faults("assert not keep_freed_memory()\ncompute(None)", **setting) > given_back / 2


def test_other_tunables_are_no_settings_of_malloc():
    faults("assert keep_freed_memory()\ncompute(None)", GLIBC_TUNABLES="glibc.rtld.optional_static_tls=2048")


@pytest.mark.parametrize(
    ("platform", "library"),
    [("linux", {}), ("linux", {"mallopt": None}), ("linux", {"malloc_trim": None}), ("win32", None)],
)
def test_other_systems_and_libraries_are_left_as_they_are(platform: str, library: dict | None, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(heap.ctypes, "CDLL", None if library is None else lambda _: SimpleNamespace(**library))
    assert heap.keep_freed_memory() is False
    heap.give_back_freed_memory()
