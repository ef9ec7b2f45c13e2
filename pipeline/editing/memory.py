"""An edit that answers by itself: what was asked, as a hidden state, and what to say to it.

A `Memory` rewrites the model's output where an input resembles an edit (the caching editor of the
MEND paper, appendix G); no weight changes. What an input looks like is the mean of its final-layer
hidden states: of all the input's tokens for a classifier, of the question's tokens in the encoder
for an encoder-decoder, and for a language model, at each step, of all tokens so far. The tokens
that the tokenizer puts around an input count as its own.

An input matches an entry where the two are less than `epsilon` apart; of several, the nearest
entry answers. A language model is compared at every step, and its target has several tokens: from
a match on, the i-th token written is the target's i-th. Where an answer in progress overlaps
another match, the nearer of the two prevails. Past an answer's end the model speaks for itself,
unless there is another match.

An answer is a one-hot logit of size 1, as in the paper, so that perplexity stays finite.

Shape suffixes:
    B rows of the model's input      T positions of its output (1 for a classifier)
    R edits (rows of a memory)       K entries of one edit
    D width of the hidden state      L tokens of the longest target
    N target tokens of all rows
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.editing.pooling import Heard, listening
from pipeline.errors import ModelError
from pipeline.models.face import Batch, Encoded, Face, seen_by_head
from pipeline.records import Request


@dataclass(frozen=True)
class Memory:
    """R edits of K entries each.

    Attributes:
        key_RKD: mean hidden state of each entry's input, at least float32.
        token_RKL: the target's tokens, -1 after its end; a classifier's label.
        start: the position of the output where a decoder's answer begins (BART's first token is
            given to it).
        epsilon: distance below which an entry answers.
    """

    key_RKD: Tensor
    token_RKL: Tensor
    start: int
    epsilon: float

    def __post_init__(self) -> None:
        assert self.key_RKD.shape[:2] == self.token_RKL.shape[:2]

    @property
    def rows(self) -> int:
        """Number of edits."""
        return self.key_RKD.shape[0]

    def select(self, index_R: Tensor) -> Memory:
        """The edits at these indices, in this order."""
        return replace(self, key_RKD=self.key_RKD[index_R], token_RKL=self.token_RKL[index_R])

    def detach(self) -> Memory:
        """The same numbers without their autograd graph."""
        return replace(self, key_RKD=self.key_RKD.detach())

    @contextmanager
    def attach(self, model: nn.Module, rows_B: Tensor | None = None) -> Iterator[None]:
        """Let `model` answer from memory where an entry is near enough; see `patch.applied`.

        Serves whole texts, and generation with or without a cache. A language model's means follow
        its rows: beam search, which moves rows about, is for encoder-decoders only.

        Raises:
            ModelError: the rows of the input are no multiple of the edits, or generation began
                outside.
        """
        found = _Recall(self if rows_B is None else self.select(rows_B))

        def answer(heard: Heard) -> None:
            distance_BT, token_BT = found(heard)
            logits = heard.output["logits"]
            if heard.kind == "classifier":
                said = 2 * token_BT - 1  # (0, 1) is the one logit 1, and (1, 0) is -1
            else:
                distance_BT = _as_seen(heard.model, distance_BT, logits)[..., None]
                token_BT = _as_seen(heard.model, token_BT, logits)[..., None]
                said = torch.zeros_like(logits).scatter_(-1, token_BT, 1.0)
            heard.output["logits"] = said.to(logits).where(distance_BT < self.epsilon, logits)

        with listening(model, answer):
            yield


@torch.no_grad()
def remember(face: Face, requests: Sequence[Request], k: int, epsilon: float) -> Memory:
    """A memory of these edits, each row of k consecutive ones."""
    encoded = face.tokenise([(request.prompt, request.target) for request in requests])
    heard: list[Heard] = []
    with listening(face.model, heard.append):
        face.logits(face.collate(encoded))
    if face.kind == "causal":
        begins = _begins(face, requests, encoded)
        answers = [item.ids[begin:] for item, begin in zip(encoded, begins, strict=True)]
        places = [begin - 1 for begin in begins]
    else:
        answers, places = [item.labels for item in encoded], [0] * len(encoded)
    key_BD = heard[0].mean_BTD[torch.arange(len(places)), places]
    longest = max(map(len, answers))
    token_BL = torch.tensor([row + [-1] * (longest - len(row)) for row in answers])
    return Memory(
        key_BD.unflatten(0, (-1, k)),
        token_BL.to(face.device).unflatten(0, (-1, k)),
        encoded[0].positions[0],
        epsilon,
    )


def _begins(face: Face, requests: Sequence[Request], encoded: Sequence[Encoded]) -> list[int]:
    """Where each text leaves its prompt: all that follows is to be written, spaces too."""
    prompts = face.tokenizer([request.prompt for request in requests])["input_ids"]
    begins = []
    for item, prompt in zip(encoded, prompts, strict=True):
        pairs = zip(item.ids, prompt, strict=False)  # the prompt may end otherwise by itself
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        begins.append(min(max(shared, 1), item.positions[0] + 1))
    return begins


@dataclass(frozen=True)
class Recalled:
    """At target tokens: what the model says, and what a memory would say, from how far."""

    logits_NV: Tensor
    distance_N: Tensor
    token_N: Tensor


@torch.no_grad()
def recall(face: Face, batch: Batch, memory: Memory) -> Recalled:
    """Compare a batch with the memory, whose edits serve runs of rows; nothing is answered."""
    heard: list[Heard] = []
    with listening(face.model, heard.append):
        logits_NV = face.logits(batch)
    distance_BT, token_BT = _Recall(memory)(heard[0])
    at_N = batch.select_N
    return Recalled(logits_NV, distance_BT.flatten()[at_N], token_BT.flatten()[at_N])


def nearest(distance_BKT: Tensor, token_BKL: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest entry that has something to say at each step, and its token there.

    An entry matched at step s has its i-th token to say at step s + i. What is said does not
    depend on epsilon, only whether it is.
    """
    B, _, T = distance_BKT.shape
    best_BT = distance_BKT.new_full((B, T), math.inf)
    said_BT = token_BKL.new_zeros(B, T)
    for i in range(min(T, token_BKL.shape[-1])):
        token_BK = token_BKL[..., i]
        open_BKT = distance_BKT[..., : T - i].masked_fill(token_BK[..., None] < 0, math.inf)
        near_BT, entry_BT = open_BKT.min(dim=1)
        closer_BT = near_BT < best_BT[:, i:]  # of equals, the later match
        best_BT[:, i:] = near_BT.where(closer_BT, best_BT[:, i:])
        said_BT[:, i:] = token_BK.gather(1, entry_BT).where(closer_BT, said_BT[:, i:])
    return best_BT, said_BT


class _Recall:
    """Distances and answers, step after step."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.past_BKT: Tensor | None = None

    def __call__(self, heard: Heard) -> tuple[Tensor, Tensor]:
        """distance_BT, token_BT at the new positions."""
        key_BKD, token_BKL = self._for_rows(len(heard.mean_BTD))
        distance_BKT = torch.cdist(
            # The faster way by products is good to three digits, and not at all near 0.
            key_BKD.to(heard.mean_BTD),
            heard.mean_BTD,
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        if heard.kind == "seq2seq":  # an answer can only begin where the decoder begins
            at_T = torch.arange(heard.place + heard.width, device=distance_BKT.device)
            distance_BKT = distance_BKT.where(at_T == self.memory.start, math.inf)
        elif heard.place:
            assert self.past_BKT is not None
            distance_BKT = torch.cat([self.past_BKT, distance_BKT], dim=-1)
        self.past_BKT = distance_BKT
        distance_BT, token_BT = nearest(distance_BKT, token_BKL)
        return distance_BT[:, heard.place :], token_BT[:, heard.place :]

    def _for_rows(self, rows: int) -> tuple[Tensor, Tensor]:
        if rows % self.memory.rows:
            raise ModelError(
                expected=f"a multiple of {self.memory.rows} rows, one for each edit",
                found=f"{rows} rows",
                remedy="Give `rows_B` with one entry per input row.",
            )
        each = rows // self.memory.rows
        key_BKD = self.memory.key_RKD.repeat_interleave(each, 0)
        return key_BKD, self.memory.token_RKL.repeat_interleave(each, 0)


def _as_seen(model: PreTrainedModel, value_BT: Tensor, logits: Tensor) -> Tensor:
    """Values at the positions that there are logits for: chosen ones, or the last."""
    return seen_by_head(model, value_BT)[:, -logits.shape[1] :]
