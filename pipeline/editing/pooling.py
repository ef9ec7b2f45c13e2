"""Mean final-layer hidden states of what a model reads, as it reads.

One mean of all the input's tokens for a classifier, and of the encoder's for an encoder-decoder;
for a language model a mean at each token, of all tokens so far, over the calls of a generation.

Shape suffixes:
    B rows of the model's input      T positions read in this call
    S positions read so far          D width of the hidden state
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from pipeline.errors import ModelError
from pipeline.models.layouts import Kind, layout_of


@dataclass(frozen=True)
class Heard:
    """A forward pass: the means at its `width` new output positions, the first being `place`.

    Where the mean is that of the input, it stands once, for all positions.
    """

    model: PreTrainedModel
    kind: Kind
    mean_BTD: Tensor
    place: int
    width: int
    output: ModelOutput


class _Running:
    """Means over all tokens so far, carried from call to call."""

    def __init__(self) -> None:
        self.total_B1D: Tensor | None = None
        self.count_B11: Tensor | None = None
        self.place = 0

    def __call__(self, hidden_BTD: Tensor, mask_BS: Tensor | None, place: int) -> Tensor:
        """mean_BTD over what came up to each new token and itself; infinitely far in padding."""
        weight_BT1 = _weights(hidden_BTD, mask_BS)
        total_BTD = (hidden_BTD * weight_BT1).cumsum(1)
        count_BT1 = weight_BT1.cumsum(1)
        if place:
            if self.total_B1D is None or self.count_B11 is None or self.place != place:
                raise ModelError(
                    expected="a text that is read from its first token on",
                    found=f"a cache of {place} tokens, of which {self.place} were seen",
                    remedy="Generate from the prompt inside the context that applies the memory.",
                )
            total_BTD, count_BT1 = total_BTD + self.total_B1D, count_BT1 + self.count_B11
        self.total_B1D, self.count_B11 = total_BTD[:, -1:], count_BT1[:, -1:]
        self.place = place + hidden_BTD.shape[1]
        return (total_BTD / count_BT1.clamp(min=1)).masked_fill(count_BT1 == 0, math.inf)


@contextmanager
def listening(model: nn.Module, hear: Callable[[Heard], None]) -> Iterator[None]:
    """Call `hear` at the end of each of the model's forward passes, before it returns."""
    assert isinstance(model, PreTrainedModel)
    kind = layout_of(model.config).kind
    states: list[Tensor] = []
    running = _Running()

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        states[:] = [_wide(output[0])]

    def end(_module: nn.Module, _inputs: Any, given: dict[str, Any], output: ModelOutput) -> None:
        mask, width, place = given.get("attention_mask"), 1, 0
        if kind == "seq2seq":
            states[:] = [_wide(output["encoder_last_hidden_state"])]
            width = given["decoder_input_ids"].shape[1]
        elif kind == "causal":
            width = states[0].shape[1]
        if (cache := given.get("past_key_values")) is not None:
            place = cache.get_seq_length() - width  # the cache holds the new tokens by now
        hidden_BTD = states.pop()
        if kind == "causal":
            mean_BTD = running(hidden_BTD, mask, place)
        else:
            weight_BT1 = _weights(hidden_BTD, mask)
            mean_BTD = (hidden_BTD * weight_BT1).sum(1, True) / weight_BT1.sum(1, True)
        hear(Heard(model, kind, mean_BTD, place, width, output))

    handles = [model.register_forward_hook(end, with_kwargs=True)]
    if kind != "seq2seq":
        inner = model.get_decoder() if kind == "causal" else model.base_model
        handles.append(inner.register_forward_hook(keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _weights(hidden_BTD: Tensor, mask_BS: Tensor | None) -> Tensor:
    """1 for tokens and 0 for padding; the mask may reach back to tokens that were read before."""
    if mask_BS is None:
        return torch.ones_like(hidden_BTD[..., :1])
    return mask_BS[:, -hidden_BTD.shape[1] :, None].to(hidden_BTD)


def _wide(hidden_BTD: Tensor) -> Tensor:
    """At least float32, detached: sums of half precision would lose the distances."""
    wide = torch.promote_types(hidden_BTD.dtype, torch.float32)
    return hidden_BTD.detach().to(wide)
