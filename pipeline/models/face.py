"""One way to read, score and question every kind of model.

A face turns (prompt, target) pairs into a batch, gives logits at target positions only, and writes
answers. All measures downstream see N target tokens with V classes each: a classifier's one logit z
becomes the pair (0, z), whose softmax is its Bernoulli, so nothing after this module asks which
kind of model it is.

Shape suffixes:
    B rows (prompts)    T positions    V vocabulary
    N target tokens of all rows, one after another
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from pipeline.errors import DataError
from pipeline.models.layouts import Kind, Place, default_blocks, sites

Tokenizer = Any  # transformers' tokenizer classes share no typed interface


@dataclass(frozen=True)
class Encoded:
    """One (prompt, target) pair as token ids.

    `positions` are the places in the output whose logits predict `labels`.
    """

    ids: list[int]
    positions: list[int]
    labels: list[int]
    decoder_ids: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids) + len(self.decoder_ids)


SLACK = 3  # tokens that a free answer may run over its expected length before it is cut


@dataclass(frozen=True)
class Written:
    """A free answer: at most `length + SLACK` tokens, whatever else was in the batch.

    A causal model never stops, so `opening` is the first `length` tokens of what it says.
    """

    text: str
    opening: str


@dataclass(frozen=True)
class Batch:
    """Padded rows, and where their target tokens are."""

    inputs: dict[str, Tensor]
    select_N: Tensor  # index into the B * T flattened outputs
    label_N: Tensor
    row_N: Tensor
    rows: int


class Face(ABC):
    """A model with its tokenizer. Built by `pipeline.models.load`."""

    kind: ClassVar[Kind]

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model's parameters live."""
        device: torch.device = self.model.device
        return device

    @property
    def labels(self) -> tuple[str, ...]:
        """A classifier's two answers; empty where any words may be the answer."""
        return ()

    @cached_property  # asked for each text, and slow to find
    def context(self) -> int:
        """The longest input the model was built for, in tokens."""
        config = self.model.config.get_text_config()
        for name in ("max_position_embeddings", "n_positions"):
            if isinstance(limit := getattr(config, name, None), int):
                return limit
        return 512  # T5's positions are relative; this is the length it was trained on

    def sites(self, place: Place = "mlp", blocks: int | None = None) -> tuple[str, ...]:
        """Editable linear maps: the paper's last blocks by default."""
        return sites(self.model, blocks or default_blocks(self.model.config), place)

    @abstractmethod
    def tokenise(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Token ids of (prompt, target) pairs.

        Raises:
            DataError: a pair is longer than the context, or its target has no token.
        """

    @abstractmethod
    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """Pad (on the right) into one batch on the model's device."""

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """logits_NV at target positions only."""

    @abstractmethod
    def write(self, prompts: Sequence[str], lengths: Sequence[int]) -> list[Written]:
        """Greedy free generation: what the model answers with nothing given but the prompt.

        Raises:
            DataError: a prompt, or what is to be written, does not fit the context.
        """

    def completed(self, pairs: Sequence[tuple[str, str]]) -> list[str | None]:
        """How an answer opens (`Written.opening`) where the model is known to say the target.

        Known from teacher forcing: each target token is the argmax, so that nothing has to be
        written. None where that does not tell.
        """
        return [None] * len(pairs)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> Batch:
        """`tokenise`, then `collate`."""
        return self.collate(self.tokenise(pairs))

    def _check_length(self, prompt: str, length: int) -> None:
        if length > self.context:
            raise DataError(
                expected=f"at most {self.context} tokens, the model's context",
                found=f"{length} for {prompt[:60]!r}",
                remedy="Shorten the text, or use a model with a longer context.",
            )


def pad(rows: Sequence[Sequence[int]], value: int, device: torch.device) -> Tensor:
    """Rows of unequal length as one tensor, filled up on the right."""
    width = max(len(row) for row in rows)
    filled = [[*row, *[value] * (width - len(row))] for row in rows]
    return torch.tensor(filled, device=device)


def token_batch(inputs: dict[str, Tensor], encoded: Sequence[Encoded], width: int) -> Batch:
    """A batch of token predictions over outputs of `width` positions."""
    device = inputs["input_ids"].device
    select = [b * width + p for b, item in enumerate(encoded) for p in item.positions]
    labels = [label for item in encoded for label in item.labels]
    rows = [b for b, item in enumerate(encoded) for _ in item.positions]
    return Batch(
        inputs=inputs,
        select_N=torch.tensor(select, dtype=torch.long, device=device),
        label_N=torch.tensor(labels, dtype=torch.long, device=device),
        row_N=torch.tensor(rows, dtype=torch.long, device=device),
        rows=len(encoded),
    )


_MARKS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


@contextmanager
def unbent(model: PreTrainedModel, *, ends: bool = True) -> Iterator[None]:
    """Let a model write without the settings that it brings along, but for its special tokens.

    Without `ends`, nothing that it writes is the end of a text.

    Penalties, bans and beams bend even a greedy answer; what is measured is what the model says.
    """
    own = model.generation_config
    assert own is not None
    marks = [name for name in _MARKS if ends or name != "eos_token_id"]
    model.generation_config = GenerationConfig(
        **{name: getattr(own, name) for name in marks if getattr(own, name) is not None}
    )
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def head_at(model: PreTrainedModel, select_N: Tensor) -> Iterator[None]:
    """Let the language-model head see only the selected positions.

    The head is most of a small model's work, and labels sit at a few positions. Selecting in front
    of it keeps whatever the architecture does after it (bias, scaling, soft caps).
    """
    handle = _head(model).register_forward_pre_hook(_Selector(select_N))
    try:
        yield
    finally:
        handle.remove()


def seen_by_head(model: PreTrainedModel, value_BT: Tensor) -> Tensor:
    """Those of a value's positions that `head_at` lets the head see now, as 1 x N; else all."""
    for hook in _head(model)._forward_pre_hooks.values():
        if isinstance(hook, _Selector):
            return value_BT.reshape(-1)[hook.select_N][None]
    return value_BT


class _Selector:
    """The head's hook while it sees selected positions only."""

    def __init__(self, select_N: Tensor) -> None:
        self.select_N = select_N

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        hidden_BTD = inputs[0]
        return (hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[self.select_N][None],)


def _head(model: PreTrainedModel) -> nn.Module:
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    return head
