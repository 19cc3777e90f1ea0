"""The benchmark that tells where the time of a step goes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

TRACE = Path(__file__).parents[2] / "benchmarks" / "trace.py"


@pytest.fixture(scope="module")
def trace():
    found = importlib.util.spec_from_file_location("trace_of_a_step", TRACE)
    module = importlib.util.module_from_spec(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TRACE.parent)  # where its own imports are
        found.loader.exec_module(module)
    return module


def event(key: str, device: DeviceType, microseconds: float, named: bool = False) -> SimpleNamespace:
    times = {"self_device_time_total": microseconds, "self_cpu_time_total": microseconds, "count": 1}
    return SimpleNamespace(key=key, device_type=device, is_user_annotation=named, **times)


def test_named_parts_of_a_step_do_not_count_beside_their_kernels(trace):
    """On a GPU's line of time the profiler draws what has a name, as optimizers' steps have, over all its kernels."""
    step = "Optimizer.step#Adam.step"
    events = [
        event("gemm", DeviceType.CUDA, 3000),
        event("adam", DeviceType.CUDA, 1000),
        event(step, DeviceType.CUDA, 1000, named=True),
        event(step, DeviceType.CPU, 500, named=True),  # what Python takes in it, which nothing else is charged with
        event("aten::mm", DeviceType.CPU, 100),
    ]
    traced = SimpleNamespace(key_averages=lambda: events)
    assert trace.own_times(traced, gpu=True) == {"gemm": (3, 1), "adam": (1, 1)}
    assert trace.own_times(traced, gpu=False) == {step: (0.5, 1), "aten::mm": (0.1, 1)}
