"""Linear maps that have a weight of their own for each row of the input, while rows are tuned.

Adding x ΔWᵀ to x Wᵀ, as a patch does, takes two products forward and two backward. Whoever moves
whole weights, step by step, takes one of each: the map's own product is left out.

Shape suffixes: R rows (edits), N positions of one row, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from pipeline.editing.patch import linear_map
from pipeline.models.lower import acting


@contextmanager
def weighing(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let sites of `model` use other weights inside this context.

    Args:
        model: any model that owns the sites.
        weights: of each site R x O x I, for inputs of R * n leading rows: each n rows in turn see
            one weight. Biases stay the module's own.
    """
    with ExitStack() as stack:
        for site, weight_ROI in weights.items():
            module = linear_map(model, site)
            stack.enter_context(acting(module, _forward(module, weight_ROI)))
        yield


def _forward(module: nn.Module, weight_ROI: Tensor) -> Callable[[Tensor], Tensor]:
    rows, outputs, inputs = weight_ROI.shape
    weight_RIO, bias_O = weight_ROI.transpose(1, 2), module.bias

    def forward(x: Tensor) -> Tensor:
        x_RNI = x.reshape(rows, -1, inputs).to(weight_ROI.dtype)
        if isinstance(bias_O, Tensor):
            y_RNO = torch.baddbmm(bias_O.to(x_RNI.dtype), x_RNI, weight_RIO)
        else:
            y_RNO = x_RNI @ weight_RIO
        return y_RNO.to(x.dtype).view(*x.shape[:-1], outputs)

    return forward
