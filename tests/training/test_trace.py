"""The benchmark that tells where the time of a step goes."""

from __future__ import annotations

from types import SimpleNamespace

from torch.autograd import DeviceType

from tests.benchmarks import load_benchmark


def event(key: str, device: DeviceType, microseconds: float, named: bool = False) -> SimpleNamespace:
    times = {"self_device_time_total": microseconds, "self_cpu_time_total": microseconds, "count": 1}
    return SimpleNamespace(key=key, device_type=device, is_user_annotation=named, **times)


def test_named_parts_of_a_step_do_not_count_beside_their_kernels():
    """On a GPU's line of time the profiler draws what has a name, as optimizers' steps have, over all its kernels."""
    step = "Optimizer.step#Adam.step"
    events = [
        event("gemm", DeviceType.CUDA, 3000),
        event("adam", DeviceType.CUDA, 1000),
        event(step, DeviceType.CUDA, 1000, named=True),
        event(step, DeviceType.CPU, 500, named=True),  # what Python takes in it, which nothing else is charged with
        event("aten::mm", DeviceType.CPU, 100),
    ]
    trace, traced = load_benchmark("trace"), SimpleNamespace(key_averages=lambda: events)
    assert trace.own_times(traced, gpu=True) == {"gemm": (3, 1), "adam": (1, 1)}
    assert trace.own_times(traced, gpu=False) == {step: (0.5, 1), "aten::mm": (0.1, 1)}
