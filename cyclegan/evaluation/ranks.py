"""The little of torch.distributed that evaluation needs; outside of a process group everything is rank 0 of 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gathered(value: T) -> list[T]:
    """Every rank's value, by rank."""
    _, world = rank_and_world()
    if world == 1:
        return [value]
    values = [None] * world
    dist.all_gather_object(values, value)
    return values


def together(work: Callable[[], T]) -> list[T]:
    """Every rank's result of `work`; if one of them fails, all raise its error instead of waiting for it."""
    try:
        outcome = work()
    except Exception as error:
        outcome = error
        if rank_and_world()[1] == 1:
            raise
    outcomes = gathered(outcome)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def on_first_rank(work: Callable[[], T]) -> T:
    """Rank 0's result of `work`, on all ranks."""
    rank, _ = rank_and_world()
    return together(lambda: work() if rank == 0 else None)[0]
