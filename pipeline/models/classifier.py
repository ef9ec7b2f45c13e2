"""Binary classifiers with one logit, such as BERT with a linear head (MEND's FEVER model)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.errors import DataError
from pipeline.models.face import Batch, Encoded, Face, Written, pad
from pipeline.models.layouts import Kind, attentions
from pipeline.records import LABELS


class Classifier(Face):
    """The logit z of "true" is presented as the logits (0, z) of ("false", "true")."""

    kind: ClassVar[Kind] = "classifier"

    @property
    def labels(self) -> tuple[str, ...]:
        """False and true, as words."""
        return LABELS

    def tokenise(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """One label per prompt."""
        found = self.tokenizer([prompt for prompt, _ in pairs])["input_ids"]
        return [self._encoded(*pair, ids) for pair, ids in zip(pairs, found, strict=True)]

    def _encoded(self, prompt: str, target: str, ids: list[int]) -> Encoded:
        self._check_length(prompt, len(ids))
        if target not in LABELS:
            raise DataError(
                expected=f"a label out of {LABELS}",
                found=f"{target!r} for {prompt[:60]!r}",
                remedy="A classifier's edit says whether the claim is true.",
            )
        return Encoded(ids, [0], [LABELS.index(target)])

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """Right padding; each row is one prediction."""
        inputs = {
            "input_ids": pad(
                [item.ids for item in encoded], self.tokenizer.pad_token_id, self.device
            ),
            "attention_mask": pad([[1] * len(item.ids) for item in encoded], 0, self.device),
        }
        rows = torch.arange(len(encoded), device=self.device)
        labels = torch.tensor([item.labels[0] for item in encoded], device=self.device)
        return Batch(inputs, select_N=rows, label_N=labels, row_N=rows, rows=len(encoded))

    def logits(self, batch: Batch) -> Tensor:
        """(0, z) for each row."""
        with _first_token_only(self.model):
            logit_B1 = self.model(**batch.inputs).logits
        return torch.cat([torch.zeros_like(logit_B1), logit_B1], dim=-1)

    @torch.no_grad()
    def write(self, prompts: Sequence[str], lengths: Sequence[int]) -> list[Written]:
        """The label in words; its length is not the caller's to choose."""
        del lengths
        batch = self.encode([(prompt, LABELS[0]) for prompt in prompts])
        said = [LABELS[choice] for choice in self.logits(batch).argmax(-1).tolist()]
        return [Written(label, label) for label in said]


@contextmanager
def _first_token_only(model: PreTrainedModel) -> Iterator[None]:
    """Let the last block's MLP see the first token alone: the classifier reads no other.

    Where somebody listens to the encoder's hidden states (a memory, to their mean), or the MLP
    works in chunks of tokens, all tokens pass.
    """
    if model.base_model._forward_hooks or model.config.chunk_size_feed_forward:
        yield
        return
    attention = model.get_submodule(attentions(model)[-1])
    handle = attention.register_forward_hook(_first)
    try:
        yield
    finally:
        handle.remove()


def _first(_module: nn.Module, _inputs: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (output[0][:, :1], *output[1:])
