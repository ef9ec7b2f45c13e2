"""Free texts about edited subjects, from the unedited and the edited model, as `generation` rows.

The reference draws each next token among the k likeliest until prompt and text have 100 tokens
together (ROME's `generate_fast`). Here every text has its own random numbers, from its case and its
prompt: they are the same before and after an edit and in whatever batch the text is written, so two
models are compared on the same luck.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from pipeline.editing.patch import Intervention, applied
from pipeline.models import Face
from pipeline.models.causal import Causal
from pipeline.records import Case

Row = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which texts are written, and how long.

    Attributes:
        every: one case in so many writes (the reference: 10 for thousands of edits); 0: none.
        prompts: of each of these cases, so many of its generation prompts at most.
        tokens: length of prompt and text together, at most the model's context.
        top_k: how many likeliest tokens each next one is drawn from; 1 is greedy.
        seed: of the draws.
    """

    every: int = 4
    prompts: int = 10
    tokens: int = 100
    top_k: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Opening:
    """The beginning of one text: whose, which, and the row of the patch that it sees."""

    case: Case
    index: int
    edit: int
    prompt: str


def openings(
    face: Face, cases: Sequence[Case], edits: Sequence[int], config: Config
) -> list[Opening]:
    """What is to be continued; nothing where the model writes no open-ended text.

    Whether a case writes depends on its id alone, never on the run.
    """
    if not isinstance(face, Causal):
        return []
    return [
        Opening(case, index, edit, prompt)
        for case, edit in zip(cases, edits, strict=True)
        if config.every and _number(f"{config.seed}/texts/{case.id}") % config.every == 0
        for index, prompt in enumerate(case.generation_prompts[: config.prompts])
    ]


def write(
    face: Face,
    asked: Sequence[Opening],
    config: Config,
    rows: int,
    patch: Intervention | None = None,
) -> list[str]:
    """One text for each opening, by the edited model, or without a patch by the unedited one.

    Args:
        rows: texts written at once.

    Raises:
        DataError: an opening fills the model's context.
    """
    if not asked:
        return []
    assert isinstance(face, Causal), "only language models write texts"
    texts = [""] * len(asked)
    length = min(config.tokens, face.context)
    used = [len(ids) for ids in face.tokenizer([opening.prompt for opening in asked])["input_ids"]]
    order = sorted(range(len(asked)), key=lambda i: (used[i], i))
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        luck = [_luck(asked[i], config.seed, max(1, length - used[i])) for i in part]
        edit_B = torch.tensor([asked[i].edit for i in part], device=face.device)
        with nullcontext() if patch is None else applied(face.model, patch, edit_B):
            found = face.draw([asked[i].prompt for i in part], luck, config.top_k)
        for i, text in zip(part, found, strict=True):
            texts[i] = text
    return texts


def outcome_rows(
    asked: Sequence[Opening], before: Sequence[str], after: Sequence[str]
) -> list[Row]:
    """Rows of probe `generation`: two texts and no target. To fall silent is a collapse."""
    return [
        {
            "case_id": opening.case.id,
            "probe": "generation",
            "index": opening.index,
            "prompt": opening.prompt,
            "target": "",
            "n_tokens": 0,
            "pre_gen_text": old,
            "gen_text": new,
            "collapsed": bool(old.strip()) and not new.strip(),
            "tf_exact": math.nan,
        }
        for opening, old, new in zip(asked, before, after, strict=True)
    ]


def _luck(opening: Opening, seed: int, count: int) -> list[float]:
    draw = random.Random(f"{seed}/texts/{opening.case.id}/{opening.prompt}")
    return [draw.random() for _ in range(count)]


def _number(text: str) -> int:
    """The same in every process, which `hash` of a text is not."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
