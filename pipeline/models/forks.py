"""Texts that begin alike and end in one of two ways, in one forward pass.

Scoring compares two targets after one prompt. A causal model reads the prompt once: both endings
stand behind it in one row, with a mask that hides the first from the second, and positions that
count on from where they part. Texts end where their last target token is predicted, so that two
targets of one token cost no more than the prompt. Other models get a row for each ending.

Shape suffixes:
    B texts      T positions      N target tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from pipeline.models.face import Batch, Encoded, Face, pad, token_batch


@dataclass(frozen=True)
class Forks:
    """One batch with the target tokens of all first endings, then of all second ones.

    Attributes:
        whole: what the model runs on.
        first, second: each ending's target tokens, for the measures; they have no inputs. A row of
            `second` is a text that has two endings.
        row_B: the text that each row of the whole belongs to.
    """

    whole: Batch
    first: Batch
    second: Batch
    row_B: Tensor

    def split(self, logits_NV: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the first endings' target tokens, and of the second ones'."""
        count = len(self.first.label_N)
        return logits_NV[:count], logits_NV[count:]


def collate(
    face: Face, first: Sequence[Encoded], second: Sequence[Encoded | None], *, packed: bool
) -> Forks:
    """One batch of texts, each with one ending or two.

    Args:
        face: the model.
        first: every text with its first ending.
        second: the text with its second ending, or None.
        packed: put both endings into one row, where the model is known to read them right.
    """
    others = [item for item in second if item is not None]
    owners = [row for row, item in enumerate(second) if item is not None]
    if others and packed and (reach := _reach(face)):
        rows = [_Row.of(one, two) for one, two in zip(first, second, strict=True)]
        if max(len(row.ids) for row in rows) <= reach:
            return _packed(face, first, second, rows)
    whole = face.collate([*first, *others])
    row_B = torch.tensor([*range(len(first)), *owners], device=face.device)
    return Forks(whole, _part(whole, 0, len(first)), _part(whole, len(first), whole.rows), row_B)


def _reach(face: Face) -> int:
    """How long a packed row may be: 0 where it is no use, or would be read otherwise.

    Sliding windows count places in a row, not positions in a text.
    """
    if face.kind != "causal":
        return 0
    config = face.model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("window_size", "sliding_window")]
    return min([face.context, *(w for w in windows if isinstance(w, int))])


@dataclass(frozen=True)
class _Row:
    """Prompt, first ending, second ending.

    Attributes:
        shared: tokens before the endings part.
        fork: where the second ending begins.
    """

    ids: list[int]
    shared: int
    fork: int

    @staticmethod
    def of(one: Encoded, two: Encoded | None) -> _Row:
        ids = one.ids[: one.positions[-1] + 1]
        if two is None:
            return _Row(ids, len(ids), len(ids))
        other = two.ids[: two.positions[-1] + 1]
        pairs = zip(ids, other, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return _Row(ids + other[shared:], shared, len(ids))

    def place(self, position: int) -> int:
        """Where a position of the text with its second ending stands."""
        return position if position < self.shared else self.fork + position - self.shared


def _packed(
    face: Face,
    first: Sequence[Encoded],
    second: Sequence[Encoded | None],
    rows: Sequence[_Row],
) -> Forks:
    ids_BT = pad([row.ids for row in rows], face.tokenizer.pad_token_id, face.device)
    width = ids_BT.shape[1]
    shared_B = torch.tensor([row.shared for row in rows], device=face.device)[:, None]
    fork_B = torch.tensor([row.fork for row in rows], device=face.device)[:, None]
    place_T = torch.arange(width, device=face.device)
    beyond_BT = place_T >= fork_B
    hidden_BT = (place_T >= shared_B) & ~beyond_BT  # the first ending, from the second
    blind_BTT = (place_T[:, None] < place_T) | (beyond_BT[:, :, None] & hidden_BT[:, None])
    dtype = face.model.dtype
    mask_B1TT = torch.zeros(blind_BTT.shape, dtype=dtype, device=face.device)
    mask_B1TT.masked_fill_(blind_BTT, torch.finfo(dtype).min)
    inputs = {
        "input_ids": ids_BT,
        "attention_mask": mask_B1TT[:, None],
        "position_ids": torch.where(beyond_BT, place_T - fork_B + shared_B, place_T),
    }
    one = token_batch({"input_ids": ids_BT}, first, width)
    pairs = [(row, item) for row, item in zip(rows, second, strict=True) if item is not None]
    moved = [
        Encoded(item.ids, [row.place(p) for p in item.positions], item.labels)
        for row, item in pairs
    ]
    owners = [number for number, item in enumerate(second) if item is not None]
    two = token_batch({"input_ids": ids_BT}, moved, width)
    row_N = torch.tensor(owners, device=face.device)[two.row_N]
    select_N = two.select_N + (row_N - two.row_N) * width
    whole = Batch(
        inputs,
        torch.cat([one.select_N, select_N]),
        torch.cat([one.label_N, two.label_N]),
        torch.cat([one.row_N, row_N]),
        len(rows),
    )
    return Forks(whole, one, two, torch.arange(len(rows), device=face.device))


def _part(whole: Batch, start: int, end: int) -> Batch:
    """Some rows' target tokens."""
    here_N = (whole.row_N >= start) & (whole.row_N < end)
    return Batch(
        {}, whole.select_N[here_N], whole.label_N[here_N], whole.row_N[here_N] - start, end - start
    )
