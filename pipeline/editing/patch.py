"""An edit is a value: what to add to the outputs of some of a model's linear maps.

A `Patch` maps sites (names of `nn.Linear` or `Conv1D` modules) to updates of their weight. Applying
one adds `x ΔWᵀ` to the module's output through a forward hook; the base weights are never written,
so leaving the context gives back the very same model, for every editor and in every order.

Patches hold rows. Row r is one edit; `applied(model, patch, rows)` says which edit each row of the
input sees, so a single forward pass scores many independent edits.

Shape suffixes:
    B rows of the model's input      N positions of one row (tokens, times beams)
    R edits (rows of a patch)        K terms of a factored update
    I inputs, O outputs of a site    (ΔW is always written O x I, whatever the module's layout)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pipeline.editing.updates import Dense, Factors, Spread, Update
from pipeline.errors import EditorError, ModelError


class Intervention(Protocol):
    """What an edit is to those who apply it: a `Patch`, or a `Memory` that rewrites the output."""

    @property
    def rows(self) -> int: ...
    def select(self, index_R: Tensor) -> Intervention: ...
    def detach(self) -> Intervention: ...
    def attach(
        self, model: nn.Module, rows_B: Tensor | None = None
    ) -> AbstractContextManager[None]: ...


_TensorMap = Callable[[Tensor], Tensor]
_ForwardHook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True)
class Patch:
    """Updates by site; every site holds the same number of edits."""

    updates: Mapping[str, Update]

    def __post_init__(self) -> None:
        counts = {site: update.rows for site, update in self.updates.items()}
        assert len(set(counts.values())) <= 1, f"sites disagree on the number of edits: {counts}"

    @property
    def rows(self) -> int:
        """Number of edits; 0 for the empty patch, which changes nothing."""
        return next((update.rows for update in self.updates.values()), 0)

    def select(self, index_R: Tensor) -> Patch:
        """A patch of the edits at these indices."""
        return Patch({site: update.select(index_R) for site, update in self.updates.items()})

    def detach(self) -> Patch:
        """The same numbers without their autograd graph."""
        return _map(self, lambda tensor: tensor.detach())

    @contextmanager
    def attach(self, model: nn.Module, rows_B: Tensor | None = None) -> Iterator[None]:
        """Forward hooks on the sites; see `applied`."""
        alive = [True]
        with ExitStack() as stack:
            stack.callback(alive.clear)
            for site, update in self.updates.items():
                module = linear_map(model, site)
                if rows_B is None or self.rows == 1:  # one edit for all rows needs no copies
                    seen: Update | Spread = update
                else:
                    seen = update.given_to(rows_B)
                handle = module.register_forward_hook(_adder(site, seen, alive))
                stack.callback(handle.remove)
            yield


def join(patch: Patch, k: int | None = None) -> Patch:
    """Sum every k consecutive edits into one (batched editing, MEND Table 5); None: all of them.

    A site turns dense once its terms exceed I*O/(I+O), where factors stop being smaller.
    """
    size = k or patch.rows
    assert size == 0 or patch.rows % size == 0, f"{patch.rows} edits are no whole groups of {k}"
    if size == 1:
        return patch
    return Patch({site: update.joined(size) for site, update in patch.updates.items()})


def applied(
    model: nn.Module, patch: Intervention, rows_B: Tensor | None = None
) -> AbstractContextManager[None]:
    """Let `model` answer as edited inside this context, differentiably in a patch's factors.

    Args:
        model: any model that owns the patch's sites.
        patch: R edits.
        rows_B: for each row of the input, the edit it sees. By default all rows see the only
            edit, or row r sees edit r. Modules that are handed B * n leading rows (beams, tokens
            flattened row by row, as OPT's MLP) are served row by row.

    Raises:
        ModelError: a site is missing, is no linear map, or sees rows that are no multiple of B.

    The backward pass must run inside: outside, recomputed activations would lack the edit.
    """
    return patch.attach(model, rows_B)


def linear_map(model: nn.Module, site: str) -> nn.Module:
    """The linear map of that name. Raises ModelError when there is none."""
    try:
        module = model.get_submodule(site)
    except AttributeError as error:
        raise ModelError(
            expected=f"a module named {site!r} in {type(model).__name__}",
            found="none",
            remedy="The patch or the sites belong to another architecture.",
        ) from error
    if not isinstance(module, nn.Linear | Conv1D):
        raise ModelError(
            expected=f"{site!r} to be nn.Linear or Conv1D",
            found=type(module).__name__,
            remedy="Only linear maps can be edited: choose other sites.",
        )
    return module


def weight_OI(module: nn.Module) -> Tensor:
    """A linear map's weight as O x I, whichever way round the module stores it (a view)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(module, Conv1D) else weight


def weights_of(edits: Intervention) -> Patch:
    """The edits as updates of weights. Raises EditorError where they are none (a memory)."""
    if not isinstance(edits, Patch):
        raise EditorError(
            expected="edits that update weights",
            found=f"a {type(edits).__name__}, which has no weight factors",
            remedy="Apply it in a context, or use an editor that changes weights.",
        )
    return edits


def merge(model: nn.Module, edits: Intervention) -> dict[str, float]:
    """Write W + ΔW into the model's weights, once and for good, for export.

    The sum is computed in float32 and rounded to the weight's type.

    Returns:
        For each site, the share of weights with a non-zero update that rounding left unchanged:
        0 in float32, up to 0.9 for small edits in bfloat16.
    """
    patch = weights_of(edits)
    if patch.rows > 1:
        patch = join(patch)
    lost = {}
    with torch.no_grad():
        for site, update in patch.updates.items():
            weight = weight_OI(linear_map(model, site))
            delta = update.dense_ROI()[0].float()
            merged = (weight.float() + delta).to(weight.dtype)
            moved = delta != 0
            unchanged = (merged == weight) & moved
            lost[site] = (unchanged.sum() / moved.sum().clamp(min=1)).item()
            weight.copy_(merged)
    return lost


def _map(patch: Patch, function: _TensorMap) -> Patch:
    updates: dict[str, Update] = {}
    for site, update in patch.updates.items():
        if isinstance(update, Factors):
            updates[site] = Factors(function(update.left_RKO), function(update.right_RKI))
        else:
            updates[site] = Dense(function(update.delta_ROI))
    return Patch(updates)


def _adder(site: str, update: Update | Spread, alive: list[bool]) -> _ForwardHook:
    def check(_gradient: Tensor) -> None:
        assert alive, f"backward through {site!r} ran after its edit was taken off"

    def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x, rows = inputs[0], update.rows
        if x.shape[0] % rows:
            raise ModelError(
                expected=f"{site!r} to see a multiple of {rows} rows, one for each edit",
                found=f"an input of shape {tuple(x.shape)}",
                remedy="Give `rows_B` with one entry per input row. Modules that reorder tokens "
                "(mixtures of experts) cannot be edited in rows.",
            )
        x_BNI = x.reshape(rows, -1, x.shape[-1])
        edited = output + update.act(x_BNI.to(_dtype(update))).to(output.dtype).view_as(output)
        if edited.requires_grad:
            edited.register_hook(check)
        return edited

    return add


def _dtype(update: Update | Spread) -> torch.dtype:
    return update.left_RKO.dtype if isinstance(update, Factors) else update.delta_ROI.dtype
