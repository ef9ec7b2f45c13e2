"""Encoder-decoder models: BART and T5."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.errors import DataError
from pipeline.models.face import (
    SLACK,
    Batch,
    Encoded,
    Face,
    Written,
    head_at,
    pad,
    token_batch,
    unbent,
)
from pipeline.models.layouts import Kind


class Seq2Seq(Face):
    """The encoder reads the prompt; the decoder writes the target and an end token."""

    kind: ClassVar[Kind] = "seq2seq"

    @cached_property
    def _begin(self) -> int | None:
        """The token that every target of this tokenizer begins with (BART), if any (not T5)."""
        begin = self.tokenizer.bos_token_id
        opens = self.tokenizer(text_target="a")["input_ids"][:1] == [begin]
        return int(begin) if opens else None

    def tokenise(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Labels are the target's tokens with the end token, without a leading begin token."""
        prompts = self.tokenizer([prompt for prompt, _ in pairs])["input_ids"]
        targets = self.tokenizer(text_target=[target for _, target in pairs])["input_ids"]
        return [
            self._encoded(*pair, source, labels)
            for pair, source, labels in zip(pairs, prompts, targets, strict=True)
        ]

    def _encoded(self, prompt: str, target: str, source: list[int], labels: list[int]) -> Encoded:
        self._check_length(prompt, max(len(source), len(labels)))
        # The begin token is given when the model writes freely, so it is no label either.
        first = 0 if self._begin is None else 1
        if set(labels[first:]) <= {self.tokenizer.eos_token_id}:
            raise DataError(
                expected="a target of at least one token",
                found=f"{target!r} after {prompt[-60:]!r}",
                remedy="Give the edit a target that the tokenizer keeps.",
            )
        start = self.model.config.decoder_start_token_id
        decoder = [start, *labels[:-1]]
        return Encoded(source, list(range(first, len(labels))), labels[first:], decoder)

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """Right padding on both sides."""
        filler = self.tokenizer.pad_token_id
        decoder_BT = pad([item.decoder_ids for item in encoded], filler, self.device)
        inputs = {
            "input_ids": pad([item.ids for item in encoded], filler, self.device),
            "attention_mask": pad([[1] * len(item.ids) for item in encoded], 0, self.device),
            "decoder_input_ids": decoder_BT,
            "decoder_attention_mask": pad(
                [[1] * len(item.decoder_ids) for item in encoded], 0, self.device
            ),
        }
        return token_batch(inputs, encoded, decoder_BT.shape[1])

    def logits(self, batch: Batch) -> Tensor:
        """logits_NV of the decoder at each target token."""
        with head_at(self.model, batch.select_N):
            output = self.model(**batch.inputs, use_cache=False).logits[0]
        assert isinstance(output, Tensor)
        return output

    def write(self, prompts: Sequence[str], lengths: Sequence[int]) -> list[Written]:
        """Greedy answers; they end where the model ends them, or are cut, at the context at last.

        Raises:
            DataError: a prompt does not fit the context.
        """
        rows = self._answer(prompts, max(lengths) + SLACK, beams=1)
        given = 1 if self._begin is None else 2  # the decoder's start, and the begin token
        texts = [
            self._decode(row[: given + length + SLACK])
            for row, length in zip(rows, lengths, strict=True)
        ]
        return [Written(text, text) for text in texts]

    def completed(self, pairs: Sequence[tuple[str, str]]) -> list[str | None]:
        """Nothing follows: a target's last token is the one that ends it, if the model does."""
        return self.spelled([target for _, target in pairs])

    def spelled(self, targets: Sequence[str]) -> list[str | None]:
        """Targets as the model would write them, up to where it ends; None where it would not."""
        assert self.model.generation_config is not None
        found = self.model.generation_config.eos_token_id
        ends = set(found if isinstance(found, list) else [found])
        first = 0 if self._begin is None else 1  # the begin token is given
        texts: list[str | None] = []
        for ids in self.tokenizer(text_target=list(targets))["input_ids"]:
            at = next((i for i, token in enumerate(ids) if i >= first and token in ends), None)
            texts.append(None if at is None else self._decode(ids[:at]))
        return texts

    def beams(self, prompts: Sequence[str], new_tokens: int, beams: int) -> list[list[str]]:
        """The `beams` best answers to each prompt by beam search, best first."""
        texts = [self._decode(row) for row in self._answer(prompts, new_tokens, beams)]
        return [texts[i : i + beams] for i in range(0, len(texts), beams)]

    @torch.no_grad()
    def _answer(self, prompts: Sequence[str], new_tokens: int, beams: int) -> list[list[int]]:
        found = self.tokenizer(
            list(prompts), return_tensors="pt", padding=True, padding_side="right"
        )
        for prompt, length in zip(prompts, found["attention_mask"].sum(1).tolist(), strict=True):
            self._check_length(prompt, length)
        # No decoder has more places, whatever the prompt: a long answer is cut there.
        new_tokens = min(new_tokens + (self._begin is not None), self.context)
        with unbent(self.model):
            output_BT = self.model.generate(
                input_ids=found["input_ids"].to(self.device),
                attention_mask=found["attention_mask"].to(self.device),
                max_new_tokens=new_tokens,
                forced_bos_token_id=self._begin,
                do_sample=False,
                num_beams=beams,
                num_return_sequences=beams,
            )
        rows: list[list[int]] = output_BT.tolist()
        return rows

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))
