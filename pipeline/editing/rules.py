"""How fine-tuning moves weights: RMSprop (MEND's FT), and Adam with decay or a bound (MEMIT's).

A rule works on a few rows at once, in place; each row has a state and a number of steps of its own.

Shape suffixes: C rows of a chunk, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

_SMOOTHING, _EPSILON = 0.99, 1e-8  # torch.optim.RMSprop's defaults, which the reference uses
_MANY = 1e6  # steps, after which 0.99^n is nothing


@dataclass(frozen=True)
class Chunk:
    """A few rows of one site: their weights, and what a rule needs to move them.

    Attributes:
        weight_COI: moved in place.
        start_OI: what they all began as.
        gradient_COI: of each row's loss; may be overwritten.
        states_COI: the rule's own, zero at a row's start.
        steps: how often each row has moved.
        moving: which rows shall move; of those that do not, the gradient is zero.
    """

    weight_COI: Tensor
    start_OI: Tensor
    gradient_COI: Tensor
    states_COI: Sequence[Tensor]
    steps: Sequence[int]
    moving: Sequence[bool]


class Rule(Protocol):
    """One optimiser."""

    @property
    def states(self) -> int:
        """Tensors of a weight's size that it keeps."""
        ...

    def move(self, chunk: Chunk, rate: float) -> None:
        """Take one step."""
        ...


@dataclass(frozen=True)
class RMSprop:
    """torch.optim.RMSprop with its defaults. A gradient of zero moves nothing."""

    states: int = 1

    def move(self, chunk: Chunk, rate: float) -> None:
        """W -= rate · g / (sqrt(mean square) + ε), in one pass over memory.

        Adam without momentum is this rule, once its bias is worn off: so it is told that it has
        taken many steps. Its mean is the gradient itself, each number read before it is written.
        """
        adam(
            [chunk.weight_COI],
            [chunk.gradient_COI],
            [chunk.gradient_COI],
            list(chunk.states_COI),
            [],
            [torch.tensor(_MANY, device=chunk.weight_COI.device)],
            fused=True,
            amsgrad=False,
            beta1=0.0,
            beta2=_SMOOTHING,
            lr=rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )


@dataclass(frozen=True)
class Adam:
    """torch.optim.Adam with its defaults.

    Attributes:
        decay: its `weight_decay`, of the whole weight: W is drawn to 0.
        bound: how far a weight may go from its start, but for rounding; None for no bound.
    """

    decay: float = 0.0
    bound: float | None = None
    states: int = 2

    def move(self, chunk: Chunk, rate: float) -> None:
        """One step of the rows that move, then the bound."""
        gradient_COI, weight_COI = chunk.gradient_COI, chunk.weight_COI
        if self.decay:
            gradient_COI.add_(weight_COI, alpha=self.decay)
        mean_COI, square_COI = chunk.states_COI
        mean_COI.lerp_(gradient_COI, 0.1)
        square_COI.mul_(0.999).addcmul_(gradient_COI, gradient_COI, value=0.001)
        step_C = weight_COI.new_tensor([steps + 1 for steps in chunk.steps])[:, None, None]
        moving_C = weight_COI.new_tensor(chunk.moving)[:, None, None]
        root_COI = torch.div(square_COI, 1 - 0.999**step_C).sqrt_().add_(1e-8)
        weight_COI.sub_(moving_C * rate / (1 - 0.9**step_C) * mean_COI / root_COI)
        if self.bound is not None:
            torch.clamp(
                weight_COI, chunk.start_OI - self.bound, chunk.start_OI + self.bound, out=weight_COI
            )
