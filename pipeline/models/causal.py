"""Decoder-only language models: GPT-2, GPT-J, OPT, Llama and their like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from pipeline.errors import DataError, ModelError
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


class Causal(Face):
    """The prompt and the target are one text, tokenised once; offsets tell them apart."""

    kind: ClassVar[Kind] = "causal"

    @property
    def begin(self) -> str:
        """What a text begins with that the model writes from nothing.

        Raises:
            ModelError: its tokenizer has neither a begin token nor an end token.
        """
        if self.tokenizer("")["input_ids"]:
            return ""  # it begins every text with that token by itself
        found = self.tokenizer.bos_token or self.tokenizer.eos_token
        if found is None:
            raise ModelError(
                expected="a tokenizer with a begin or an end token, to let the model write freely",
                found="neither",
                remedy="Set its bos_token or eos_token to the one that the model was trained with.",
            )
        return str(found)

    def tokenise(self, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Target tokens end beyond the prompt. Passages (no prompt) are cut to fit the context."""
        texts = [prompt + target for prompt, target in pairs]
        found = self.tokenizer(texts, return_offsets_mapping=True)
        rows = zip(pairs, found["input_ids"], found["offset_mapping"], strict=True)
        return [self._encoded(*pair, ids, offsets) for pair, ids, offsets in rows]

    def _encoded(
        self, prompt: str, target: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> Encoded:
        if not prompt:
            ids, offsets = ids[: self.context], offsets[: self.context]
        self._check_length(prompt, len(ids))
        # Position 0 has nothing before it that could predict it. A space that is a token by itself
        # covers no character, as a begin token does; it ends after the prompt all the same.
        places = [i for i, (_, end) in enumerate(offsets) if i and end > len(prompt)]
        if not places:
            raise DataError(
                expected="a target of at least one token",
                found=f"{target!r} after {prompt[-60:]!r}",
                remedy="Give the edit a target that the tokenizer keeps.",
            )
        return Encoded(ids, [i - 1 for i in places], [ids[i] for i in places])

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """Right padding; causal attention never looks at it, the mask says so all the same.

        Rows end where their last target token is predicted: nothing looks at that token itself.
        """
        ids = [item.ids[: item.positions[-1] + 1] for item in encoded]
        ids_BT = pad(ids, self.tokenizer.pad_token_id, self.device)
        mask_BT = pad([[1] * len(row) for row in ids], 0, self.device)
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        return token_batch(inputs, encoded, ids_BT.shape[1])

    def logits(self, batch: Batch) -> Tensor:
        """logits_NV at the positions before each target token."""
        with head_at(self.model, batch.select_N):
            output = self.model(**batch.inputs, use_cache=False).logits[0]
        assert isinstance(output, Tensor)
        return output

    def write(self, prompts: Sequence[str], lengths: Sequence[int]) -> list[Written]:
        """Greedy continuations. Raises DataError where a prompt has no room for the longest."""
        rows = self._continue(prompts, max(lengths) + SLACK, do_sample=False)
        return [
            Written(self._decode(row[: length + SLACK]), self._decode(row[:length]))
            for row, length in zip(rows, lengths, strict=True)
        ]

    def completed(self, pairs: Sequence[tuple[str, str]]) -> list[str | None]:
        """Of use where a prompt's tokens are the same with and without a target."""
        read = self.tokenizer([prompt for prompt, _ in pairs])["input_ids"]
        return [
            self._decode(item.labels) if ids + item.labels == item.ids else None
            for ids, item in zip(read, self.tokenise(pairs), strict=True)
        ]

    def sample(self, prompts: Sequence[str], new_tokens: int, top_k: int = 0) -> list[str]:
        """Continuations of exactly `new_tokens`, drawn from torch's current random state.

        Args:
            prompts: texts to go on from.
            new_tokens: how far.
            top_k: each token is drawn out of the likeliest so many; 0: out of all.

        Raises:
            DataError: a prompt and its continuation are longer than the context.
        """
        rows = self._continue(
            prompts, new_tokens, do_sample=True, top_k=top_k, min_new_tokens=new_tokens
        )
        return [self._decode(row) for row in rows]

    @torch.no_grad()
    def draw(
        self, prompts: Sequence[str], luck: Sequence[Sequence[float]], top_k: int
    ) -> list[str]:
        """Continuations, each token drawn among the `top_k` likeliest but the end of the text.

        All texts are read and written from their first token on, side by side, so that none is
        padded: while one is still in its prompt, another may be writing.

        Args:
            luck: for each prompt as many numbers in [0, 1) as tokens are to follow; each decides
                one draw, so that a text depends on its own numbers alone. `top_k` = 1 is greedy.

        Raises:
            DataError: a prompt and its continuation are longer than the context.
        """
        read: list[list[int]] = self.tokenizer(list(prompts))["input_ids"]
        for prompt, ids, numbers in zip(prompts, read, luck, strict=True):
            self._check_length(prompt, len(ids) + len(numbers) - 1)  # the last is never read
        draw = _Draw(read, luck, top_k, self._ends).to(self.device)
        begin_BT = torch.tensor([ids[: draw.shared] for ids in read], device=self.device)
        with unbent(self.model, ends=False):
            output_BT = self.model.generate(
                input_ids=begin_BT,
                attention_mask=torch.ones_like(begin_BT),
                max_new_tokens=draw.steps,
                pad_token_id=self.tokenizer.pad_token_id,
                do_sample=False,
                logits_processor=LogitsProcessorList([draw]),
            )
        rows = zip(output_BT.tolist(), read, luck, strict=True)
        return [self._decode(row[len(ids) :][: len(numbers)]) for row, ids, numbers in rows]

    @property
    def _ends(self) -> list[int]:
        """Tokens that end a text."""
        assert self.model.generation_config is not None
        found = self.model.generation_config.eos_token_id
        return found if isinstance(found, list) else [] if found is None else [found]

    @torch.no_grad()
    def _continue(self, prompts: Sequence[str], new_tokens: int, **options: Any) -> list[list[int]]:
        read: list[list[int]] = self.tokenizer(list(prompts))["input_ids"]
        for prompt, ids in zip(prompts, read, strict=True):
            # The last token is written and never read.
            self._check_length(prompt, len(ids) + new_tokens - 1)
        # On the left, so that every text ends where its continuation begins.
        found = self.tokenizer.pad(
            {"input_ids": list(read)}, padding_side="left", return_tensors="pt"
        )
        ids_BT = found["input_ids"].to(self.device)
        with unbent(self.model):
            output_BT = self.model.generate(
                input_ids=ids_BT,
                attention_mask=found["attention_mask"].to(self.device),
                max_new_tokens=new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                **options,
            )
        rows: list[list[int]] = output_BT[:, ids_BT.shape[1] :].tolist()
        return rows

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


class _Draw(LogitsProcessor):
    """Leaves one token of each text: its prompt's next, or else the one that its number falls on.

    Attributes:
        shared: tokens that every prompt has, after which the first step comes.
        steps: until the last text is written.
    """

    def __init__(
        self,
        read: Sequence[Sequence[int]],
        luck: Sequence[Sequence[float]],
        top_k: int,
        ends: Sequence[int],
    ) -> None:
        texts = list(zip(read, luck, strict=True))
        self.shared = min(map(len, read))
        self.steps = max(len(ids) + len(numbers) for ids, numbers in texts) - self.shared
        self.top_k, self.ends, self.step = top_k, list(ends), 0
        self.given_BT = torch.full((len(texts), self.steps), -1)
        self.luck_BT = torch.zeros(len(texts), self.steps, dtype=torch.double)
        for row, (ids, numbers) in enumerate(texts):
            first = len(ids) - self.shared
            self.given_BT[row, :first] = torch.tensor(ids[self.shared :])
            self.luck_BT[row, first : first + len(numbers)] = torch.tensor(numbers).double()

    def to(self, device: torch.device) -> _Draw:
        """On a model's device."""
        self.given_BT, self.luck_BT = self.given_BT.to(device), self.luck_BT.to(device)
        return self

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        del input_ids
        given_B1, luck_B1 = (of[:, self.step, None] for of in (self.given_BT, self.luck_BT))
        self.step += 1
        scores = scores.clone()
        scores[:, [end for end in self.ends if end < scores.shape[1]]] = -torch.inf
        best_BK, token_BK = scores.double().topk(min(self.top_k, scores.shape[1]))
        # Sums up to each token; `cumsum` of a GPU does not repeat to the bit.
        share_BK = best_BK.softmax(-1) @ best_BK.new_ones(2 * best_BK.shape[1:]).triu()
        # Rounding may leave the whole sum short of 1.
        choice_B1 = (share_BK <= luck_B1).sum(-1, keepdim=True).clamp(max=token_BK.shape[1] - 1)
        drawn_B1 = token_BK.gather(1, choice_B1)
        chosen_BV = torch.full_like(scores, -torch.inf)
        return chosen_BV.scatter(1, torch.where(given_B1 < 0, drawn_B1, given_B1), 0.0)
