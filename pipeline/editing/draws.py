"""What a training step looks at: cases, and what is drawn for each by seed, epoch and case id."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from pipeline.editing import groups
from pipeline.models import Batch, Face
from pipeline.records import Case, Request


@dataclass(frozen=True)
class EditBatch:
    """Edits as requests and, in the same order, as rows of tokens."""

    requests: tuple[Request, ...]
    batch: Batch


def encode(face: Face, requests: Sequence[Request]) -> EditBatch:
    """Tokenise requests."""
    return EditBatch(tuple(requests), face.encode([(r.prompt, r.target) for r in requests]))


@dataclass(frozen=True)
class Draw:
    """A batch of cases with what was drawn for each: the edit, another wording, a bystander."""

    edits: EditBatch
    rephrases: Batch
    bystanders: Batch
    k: int = 1  # consecutive cases that are edited together


def draw(
    face: Face,
    cases: Sequence[Case],
    seed: int,
    epoch: int,
    k: int = 1,
    *,
    any_wording: bool = False,
    hard: bool = False,
) -> Draw:
    """Choose each case's other wording and bystander, by seed, epoch and case id.

    No bystander is about another edit of its group of k; cases that fill no group are left out.
    """
    edits, rephrases, bystanders = [], [], []
    grouped = groups.whole(cases, k)
    spared = [probes for group in grouped for probes in groups.spared(group, hard=hard)]
    for case, probes in zip(chain.from_iterable(grouped), spared, strict=True):
        choice = random.Random(f"{seed}/{epoch}/{case.id}")
        prompt = case.prompt
        others: Sequence[str] = case.rephrases or (case.prompt,)
        if any_wording and case.rephrases:
            prompt, *others = choice.sample((case.prompt, *case.rephrases), 2)
        edits.append(replace(case.request(), prompt=prompt))
        rephrases.append((choice.choice(others), case.target_new))
        bystander = choice.choice(probes)
        bystanders.append((bystander.prompt, bystander.target))
    return Draw(encode(face, edits), face.encode(rephrases), face.encode(bystanders), k)
