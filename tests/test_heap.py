from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from cyclegan.heap import OWN_SETTINGS

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep or give back as they like")
FAULTS = """
import resource, sys
from cyclegan.commands import run
from cyclegan.heap import keep_freed_memory

def compute(_):
    for turn in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b'.' * 2**26  # 16384 pages
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return 0

"""


def faults(code: str, **environment: str) -> int:
    """Pages that the system had to bring when 64 MiB were filled for the sixth time."""
    clean = {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS}
    command = [sys.executable, "-c", FAULTS + code]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@GLIBC
def test_freed_memory_is_given_back_page_by_page_but_not_by_a_command():
    assert faults("compute(None)") > 10_000
    assert faults("run('a command', compute, [])") < 100


@GLIBC
@pytest.mark.parametrize(
    "setting", [{"MALLOC_MMAP_THRESHOLD_": "65536"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}]
)
def test_settings_in_the_environment_stand(setting: dict[str, str]):
    assert faults("assert not keep_freed_memory()\ncompute(None)", **setting) > 10_000
