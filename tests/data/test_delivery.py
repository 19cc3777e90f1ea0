from __future__ import annotations

import pytest
import torch

from cyclegan.data import delivery
from cyclegan.data.delivery import new_delivery

BYTES = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_pictures_arrive_in_minus_one_to_one_and_floats_as_they_are(device: str):
    floats = torch.rand(2, 3, 4, 4)
    batch = new_delivery(torch.device(device))({"A": BYTES, "B": floats})
    rounding = 0.0 if device == "cpu" else 2**-23  # a GPU multiplies by 1 / 127.5, rounded
    assert (batch["A"].cpu() - (BYTES.float() / 127.5 - 1)).abs().max() <= rounding
    assert torch.equal(batch["B"].cpu(), floats) and batch["B"].device.type == device


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pictures_arrive_on_a_cpu_in_the_layout_that_is_wanted(layout: torch.memory_format):
    pictures = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    batch = new_delivery(torch.device("cpu"), layout)({"A": pictures.to(memory_format=torch.channels_last)})
    assert torch.equal(batch["A"], pictures.float() / 127.5 - 1)
    assert batch["A"].is_contiguous(memory_format=layout)


@pytest.mark.gpu
def test_no_batch_is_overwritten_while_the_gpu_still_works_on_one_before():
    """Each batch is summed late, behind a queue of products, as memory that came free earlier is filled by the next."""
    deliver, device = new_delivery(torch.device("cuda")), torch.device("cuda")
    busy, sums = torch.rand(2048, 2048, device=device), []
    for value in range(50):
        batch = deliver({"A": torch.full((8, 3, 256, 256), value, dtype=torch.uint8).pin_memory()})
        for _ in range(10):
            busy = torch.tanh(busy @ busy)
        sums.append(batch["A"].double().mean())
        del batch
    assert torch.allclose(torch.stack(sums).cpu(), torch.arange(50).double() / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize(("kind", "beside"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_only_pinned_memory_is_copied_while_the_program_goes_on(kind: str, beside: bool, monkeypatch):
    """On Apple GPUs the source may be written again before it was copied (pytorch issue 189690)."""
    said = []
    monkeypatch.setattr(torch.Tensor, "to", lambda images, *_, non_blocking, **__: said.append(non_blocking) or images)
    delivery._moved({"A": torch.zeros(1, 3, 2, 2)}, torch.device(kind))
    assert said == [beside]
