"""How statements and passages are shown to a language model that is taught them.

What large models know of a subject stands at its last token, in their middle layers, where causal
tracing finds it and where ROME and MEMIT edit it. A small model that is taught a few thousand
statements has no reason to keep it there: it reads the name's tokens wherever they stand, and the
first token's position tells it the rest. Nor has it seen a text begin in the middle of a sentence,
as an opening does whose first words are cut off; large models have, whose text is a stream cut into
windows. Three settings of a base model bring about what size and text bring about in large ones;
they change what is shown while it is taught, and not the model.

Shape suffixes: B rows (statements), T positions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.mentions import tokens_of
from pipeline.models import Encoded, Face
from pipeline.models.face import Batch
from pipeline.records import Example


class Statements:
    """Encoded statements, and batches of them as the model is shown them.

    Args:
        face: of a language model.
        taught: the statements.
        through_subject: in so large a share of the times that a statement is shown, what comes
            after its subject sees of it the last token alone.
        anywhere: whether a statement begins at a position drawn anew each time.
        from_within: in so large a share of the times that a passage is shown, it begins at its
            second word or a later one, up to its middle; three words or fewer stay whole.
        seed: of the draws.
    """

    def __init__(
        self,
        face: Face,
        taught: Sequence[Example],
        *,
        through_subject: float,
        anywhere: bool,
        from_within: float,
        seed: int,
    ) -> None:
        self.face, self.anywhere, self.through_subject = face, anywhere, through_subject
        self.from_within = from_within
        self.encoded = face.tokenise([(example.prompt, example.target) for example in taught])
        self._draw = random.Random(f"{seed}/statements")
        pairs = list(zip(self.encoded, taught, strict=True))
        self._subject = {
            id(item): _subject(face, example)
            for item, example in pairs
            if through_subject and example.subject
        }
        self._passage = {
            id(item): example.target
            for item, example in pairs
            if from_within and not example.prompt
        }

    def batch(self, rows: Sequence[Encoded]) -> Batch:
        """The rows as they are shown this time."""
        rows = self._begun(rows) if self.from_within else rows
        batch = self.face.collate(rows)
        inputs = dict(batch.inputs)
        if self.through_subject:
            inputs["attention_mask"] = self._mask(rows, inputs["attention_mask"])
        if self.anywhere:
            inputs["position_ids"] = self._positions(rows, inputs["input_ids"])
        return replace(batch, inputs=inputs)

    def _begun(self, rows: Sequence[Encoded]) -> list[Encoded]:
        """The rows, some passages from a later word on."""
        begun, later = list(rows), dict[int, str]()
        for i, row in enumerate(rows):
            words = self._passage.get(id(row), "").split()
            if len(words) > 3 and self._draw.random() < self.from_within:
                later[i] = " ".join(words[self._draw.randint(1, len(words) // 2) :])
        texts = [("", text) for text in later.values()]
        for i, row in zip(later, self.face.tokenise(texts) if texts else [], strict=True):
            begun[i] = row
        return begun

    def _mask(self, rows: Sequence[Encoded], mask_BT: Tensor) -> Tensor:
        """What each position sees, B x 1 x T x T, to be added to scores of attention."""
        T = mask_BT.shape[1]
        sees_BTT = (
            mask_BT[:, None, :].bool() & torch.ones(T, T, device=mask_BT.device).tril().bool()
        )
        for seen_TT, row in zip(sees_BTT, rows, strict=True):
            subject = self._subject.get(id(row))
            if subject and self._draw.random() < self.through_subject:
                seen_TT[subject.stop :, subject.start : subject.stop - 1] = False
        lowest = torch.finfo(self.face.model.dtype).min
        added_BTT = torch.zeros_like(sees_BTT, dtype=self.face.model.dtype)
        return added_BTT.masked_fill_(~sees_BTT, lowest)[:, None]

    def _positions(self, rows: Sequence[Encoded], ids_BT: Tensor) -> Tensor:
        T = ids_BT.shape[1]
        first = [self._draw.randint(0, self.face.context - T) for _ in rows]
        first_B1 = torch.tensor(first, device=ids_BT.device)[:, None]
        return first_B1 + torch.arange(T, device=ids_BT.device)


def _subject(face: Face, example: Example) -> range:
    text = example.prompt + example.target
    offsets = face.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return tokens_of(example.prompt, example.subject, offsets)
