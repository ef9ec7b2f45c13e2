"""What a training step looks at: cases, and what is drawn for each by seed, epoch and case id."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from pipeline.editing import groups
from pipeline.models import Batch, Encoded, Face
from pipeline.records import Case, Request


@dataclass(frozen=True)
class EditBatch:
    """Edits as requests and, in the same order, as rows of tokens."""

    requests: tuple[Request, ...]
    batch: Batch


def encode(face: Face, requests: Sequence[Request]) -> EditBatch:
    """Tokenise requests."""
    return EditBatch(tuple(requests), face.encode(_pairs(requests)))


def _pairs(requests: Sequence[Request]) -> list[tuple[str, str]]:
    return [(request.prompt, request.target) for request in requests]


class Reader:
    """Reads (prompt, target) pairs for a face; those that come again are not tokenised again."""

    _MOST = 2**16  # pairs remembered: some 100 MB

    def __init__(self, face: Face) -> None:
        self.face = face
        self._known: dict[tuple[str, str], Encoded] = {}

    def encode(self, pairs: Sequence[tuple[str, str]]) -> Batch:
        """As the face does."""
        if len(self._known) > self._MOST:
            self._known.clear()
        if new := [pair for pair in dict.fromkeys(pairs) if pair not in self._known]:
            self._known |= zip(new, self.face.tokenise(new), strict=True)
        return self.face.collate([self._known[pair] for pair in pairs])


@dataclass(frozen=True)
class Draw:
    """A batch of cases with what was drawn for each: the edit, another wording, a bystander."""

    edits: EditBatch
    rephrases: Batch
    bystanders: Batch
    k: int = 1  # consecutive cases that are edited together


def draw(
    reader: Reader,
    cases: Sequence[Case],
    seed: int,
    epoch: int,
    k: int = 1,
    *,
    any_wording: bool = False,
    flips: float = 0.0,
    hard: bool = False,
) -> Draw:
    """Choose each case's other wording, bystander and label, by seed, epoch and case id.

    No bystander is about another edit of its group of k; cases that fill no group are left out.
    """
    edits, rephrases, bystanders = [], [], []
    grouped = groups.whole(cases, k)
    spared = [probes for group in grouped for probes in groups.spared(group, hard=hard)]
    for case, probes in zip(chain.from_iterable(grouped), spared, strict=True):
        choice = random.Random(f"{seed}/{epoch}/{case.id}")
        request = case.request()
        if flips and reader.face.labels:
            against = choice.random() < flips
            request = replace(request, target=_label(reader.face, case.prediction, against))
        prompt = case.prompt
        others: Sequence[str] = case.rephrases or (case.prompt,)
        if any_wording and case.rephrases:
            prompt, *others = choice.sample((case.prompt, *case.rephrases), 2)
        edits.append(replace(request, prompt=prompt))
        rephrases.append((choice.choice(others), request.target))
        bystander = choice.choice(probes)
        bystanders.append((bystander.prompt, bystander.target))
    batch = EditBatch(tuple(edits), reader.encode(_pairs(edits)))
    return Draw(batch, reader.encode(rephrases), reader.encode(bystanders), k)


def _label(face: Face, said: str, against: bool) -> str:
    """What a classifier says, or the other of its two labels."""
    return face.labels[1 - face.labels.index(said)] if against else said
