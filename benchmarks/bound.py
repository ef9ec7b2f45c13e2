"""How long a training step's matrix products alone would take, at the rate of large ones."""

from __future__ import annotations

import statistics

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clock import seconds
from benchmarks.setup import Setup
from benchmarks.training import sides_of


def count_flops(setup: Setup, name: str) -> int:
    """Of one training step of an editor: every matrix product, forward and backward."""
    sides = sides_of(setup, name)
    sides.ours(setup.work.edits)
    with FlopCounterMode(display=False) as counter:
        sides.ours(setup.work.edits)
    return int(counter.get_total_flops())


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int, large: int) -> float:
    """Flops in a second, of square matrices."""
    a, b = (torch.randn(large, large, device=device, dtype=dtype) for _ in range(2))
    found = [seconds(lambda: a @ b, device)[1] for _ in range(repeats + 1)]
    return 2 * large**3 / statistics.median(found[1:])
