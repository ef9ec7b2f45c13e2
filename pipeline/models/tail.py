"""The end of a forward pass, run again and again: only late blocks, only late positions.

An edit at one token of one block changes nothing before that token and nothing below that block. So
what lies there is computed once, without a graph: the stream as it enters the first block that is
run again, and the keys and values that later positions attend to. Each further pass then costs the
late blocks at the late positions alone, with the head at target positions only.

Shape suffixes:
    B rows (texts)      P positions before the token, padded on the left
    S positions from the token on, padded on the right; the token is column 0
    D width of the stream     H heads    E width of a head    N target tokens     V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from pipeline.models.face import Batch, Encoded, Face, head_at, pad, token_batch
from pipeline.models.layouts import blocks
from pipeline.models.lower import acting

Past = tuple[tuple[Tensor | None, Tensor | None], ...]


@dataclass(frozen=True)
class Tail:
    """B texts from one of their tokens on, as the blocks from `first` on see them.

    Attributes:
        first: the first block that is run; all later ones follow.
        stream_BSD: what enters it.
        past: of each block the keys and values (B x H x P x E) of the positions before the token.
        seen_BT: 1 at real tokens, 0 at padding, for P + S positions.
        place_BS: position ids.
        encoded: the texts, with positions counted from the token.
        wraps: how many values a block returns; 0 for a bare tensor.
    """

    first: int
    stream_BSD: Tensor
    past: Past
    seen_BT: Tensor
    place_BS: Tensor
    ids_BS: Tensor
    encoded: tuple[Encoded, ...]
    wraps: int

    @property
    def rows(self) -> int:
        """Number of texts."""
        return len(self.encoded)

    def select(self, rows: Sequence[int]) -> Tail:
        """The texts at these places."""
        at_B = torch.tensor(rows, dtype=torch.long, device=self.stream_BSD.device)
        past = tuple((_take(key, at_B), _take(value, at_B)) for key, value in self.past)
        return Tail(
            self.first,
            self.stream_BSD[at_B],
            past,
            self.seen_BT[at_B],
            self.place_BS[at_B],
            self.ids_BS[at_B],
            tuple(self.encoded[row] for row in rows),
            self.wraps,
        )

    def batch(self) -> Batch:
        """Where the target tokens are, for the measures."""
        return token_batch({"input_ids": self.ids_BS}, self.encoded, self.ids_BS.shape[1])


@torch.no_grad()
def cut(face: Face, encoded: Sequence[Encoded], at: Sequence[int], first: int) -> Tail:
    """Run texts once, and keep what is needed to run them again from token `at` and block `first`.

    Args:
        face: a causal model, unedited or inside `applied`.
        encoded: texts; every label is predicted at its token `at` or later.
        at: the token of each text that edits act on.
        first: from 0 to the number of blocks; the latter leaves the final norm and the head.
    """
    ids = [item.ids[: item.positions[-1] + 1] for item in encoded]
    ids_BT = pad(ids, face.tokenizer.pad_token_id, face.device)
    seen_BT = pad([[1] * len(row) for row in ids], 0, face.device)
    place_BT = torch.arange(ids_BT.shape[1], device=face.device).expand_as(ids_BT)
    cache, entered = DynamicCache(), _Entered()
    with ExitStack() as stack:
        if first:
            block = face.model.get_submodule(blocks(face.model)[first - 1])
            stack.callback(block.register_forward_hook(entered).remove)
        _run(face, ids_BT, seen_BT, place_BT, cache, place_BT.new_zeros(0))
    stream_BTD = entered.stream_BTD if first else torch.zeros_like(ids_BT)[..., None]
    before = max(at)
    after = max(len(row) - start for row, start in zip(ids, at, strict=True))
    # Column c of the new order is column c - shift of the old one: tokens end up in one column.
    shift_B = before - torch.tensor(at, device=face.device)
    old_BT = torch.arange(before + after, device=face.device) - shift_B[:, None]
    there_BT = (old_BT >= 0) & (old_BT < ids_BT.shape[1])
    old_BT = old_BT.clamp(0, ids_BT.shape[1] - 1)
    late_BS = old_BT[:, before:]
    shifted = tuple(
        Encoded(item.ids[start:], [p - start for p in item.positions], item.labels)
        for item, start in zip(encoded, at, strict=True)
    )
    return Tail(
        first,
        stream_BTD.take_along_dim(late_BS[..., None], 1),
        _past(cache, first, old_BT[:, :before], there_BT[:, :before]),
        seen_BT.take_along_dim(old_BT, 1) * there_BT,
        late_BS,
        ids_BT.take_along_dim(late_BS, 1),
        shifted,
        entered.wraps,
    )


def logits(face: Face, tail: Tail, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """logits_NV at the target tokens of a tail.

    Args:
        face: the model of `cut`, inside `applied` if it was.
        tail: texts to run to the end.
        change: what enters block `tail.first`, B x S x D, to what shall enter it. Not for the very
            first block.
    """
    assert tail.first or change is None
    stream_BSD = change(tail.stream_BSD) if change else tail.stream_BSD
    cache = DynamicCache(tail.past) if tail.past else None
    with _skipping(face.model, tail, stream_BSD):
        return _run(face, tail.ids_BS, tail.seen_BT, tail.place_BS, cache, tail.batch().select_N)


class _Entered:
    """What left the block below, and in which form blocks of this model return it."""

    stream_BTD: Tensor
    wraps: int = 0

    def __call__(self, _module: nn.Module, _inputs: Any, output: Tensor | tuple[Any, ...]) -> None:
        if isinstance(output, tuple):
            self.stream_BTD, self.wraps = output[0], len(output)
        else:
            self.stream_BTD = output


@contextmanager
def _skipping(model: nn.Module, tail: Tail, stream_BSD: Tensor) -> Iterator[None]:
    """Blocks below the first let everything pass; the last of them hands over the stream."""
    left: Any = (stream_BSD, *[None] * (tail.wraps - 1)) if tail.wraps else stream_BSD

    def skip(hidden_BSD: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        del hidden_BSD
        return left

    with ExitStack() as stack:
        for name in blocks(model)[: tail.first]:
            stack.enter_context(acting(model.get_submodule(name), skip))
        yield


def _run(
    face: Face,
    ids_BT: Tensor,
    seen_BT: Tensor,
    place_BT: Tensor,
    cache: DynamicCache | None,
    select_N: Tensor,
) -> Tensor:
    with head_at(face.model, select_N):
        output = face.model(
            input_ids=ids_BT,
            attention_mask=seen_BT,
            position_ids=place_BT,
            past_key_values=cache,
            use_cache=False,
        ).logits[0]
    assert isinstance(output, Tensor)
    return output


def _past(cache: DynamicCache, first: int, old_BP: Tensor, there_BP: Tensor) -> Past:
    """Keys and values before the token, of the blocks that will be run.

    Masks are made from the length of the first block's, so a skipped first block keeps zeros.
    """
    if not old_BP.shape[1]:
        return ()
    found: list[tuple[Tensor | None, Tensor | None]] = []
    for number, (key, value, *_) in enumerate(cache):
        if number and number < first:
            found.append((None, None))
            continue
        key, value = (
            t.take_along_dim(old_BP[:, None, :, None], 2) * there_BP[:, None, :, None]
            for t in (key, value)
        )
        if number < first:
            key, value = torch.zeros_like(key[:, :1, :, :1]), torch.zeros_like(value[:, :1, :, :1])
        found.append((key, value))
    return tuple(found)


def _take(tensor: Tensor | None, at_B: Tensor) -> Tensor | None:
    return None if tensor is None else tensor[at_B]
