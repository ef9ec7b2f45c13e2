"""Linear maps that have a weight of their own for each row of the input, while rows are tuned.

Adding x ΔWᵀ to x Wᵀ, as a patch does, takes two products forward and two backward. Whoever moves
whole weights, step by step, takes one of each: the map's own product is left out. In half precision
that would round once where the patch, once made, rounds three times; so there it is not left out,
and what is tuned is what the patch will be.

Shape suffixes: R rows (edits), N positions of one row, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from pipeline.editing.patch import linear_map, weight_OI
from pipeline.errors import ModelError
from pipeline.models.lower import acting


@contextmanager
def weighing(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let sites of `model` use other weights inside this context.

    Args:
        model: any model that owns the sites.
        weights: of each site R x O x I, for inputs of R * n leading rows: each n rows in turn see
            one weight. Biases stay the module's own.

    Raises:
        ModelError: a site is missing, is no linear map, or sees rows that are no multiple of R.
    """
    with ExitStack() as stack:
        for site, weight_ROI in weights.items():
            module = linear_map(model, site)
            stack.enter_context(acting(module, _forward(module, weight_ROI, site)))
        yield


def _forward(module: nn.Module, weight_ROI: Tensor, site: str) -> Callable[[Tensor], Tensor]:
    rows, outputs, inputs = weight_ROI.shape
    own, own_OI, bias_O = module.forward, weight_OI(module), module.bias
    narrow = torch.promote_types(own_OI.dtype, torch.float32) != own_OI.dtype
    map_RIO = (weight_ROI - own_OI if narrow else weight_ROI).transpose(1, 2)

    def forward(x: Tensor) -> Tensor:
        if x.shape[0] % rows:
            raise ModelError(
                expected=f"{site!r} to see a multiple of {rows} rows, one for each edit",
                found=f"an input of shape {tuple(x.shape)}",
                remedy="Modules that reorder tokens (mixtures of experts) cannot be tuned in rows.",
            )
        y_RNO = x.reshape(rows, -1, inputs).to(map_RIO.dtype) @ map_RIO
        y = y_RNO.to(x.dtype).view(*x.shape[:-1], outputs)
        if narrow:
            whole: Tensor = own(x) + y
            return whole
        return y + bias_O if isinstance(bias_O, Tensor) else y

    return forward
