"""Free answers, before and after an edit: added to the rows that teacher forcing has measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from pipeline.editing.patch import Intervention, Patch, applied
from pipeline.models import Face, Written
from pipeline.questions import Asked

Row = dict[str, object]


def write(
    face: Face, asked: Sequence[Asked], rows: Sequence[Row], patch: Intervention, size: int
) -> None:
    """Add `gen_text`, `gen_exact` and `gen_contains`, and the unedited model's as `pre_*`.

    The text of an answer that is right ends where the target does; others run a little over.

    Args:
        rows: what teacher forcing measured of each question; answers are as long as its target.
        size: answers written at once.
    """
    for row in rows:
        for prefix in ("", "pre_"):
            row |= {prefix + "gen_text": None, prefix + "gen_exact": math.nan}
            row[prefix + "gen_contains"] = math.nan
    if face.labels:
        _choose(face.labels, asked, rows)
        return
    unlike: dict[tuple[str, str], int] = {}  # the unedited model says the same to the same
    open_ended = [i for i, one in enumerate(asked) if not one.passage]
    first = {i: unlike.setdefault((asked[i].prompt, asked[i].target), i) for i in open_ended}
    before = _Writer(face, asked, rows, "pre_", Patch({}), size).write(list(unlike.values()))
    after = _Writer(face, asked, rows, "", patch, size).write(open_ended)
    for i in open_ended:
        rows[i] |= _judged("pre_", before[first[i]], asked[i].target)
        rows[i] |= _judged("", after[i], asked[i].target)


class _Writer:
    """Greedy answers of one model to questions that teacher forcing has been through."""

    def __init__(
        self,
        face: Face,
        asked: Sequence[Asked],
        rows: Sequence[Row],
        prefix: str,
        patch: Intervention,
        size: int,
    ) -> None:
        self.face, self.asked, self.rows = face, asked, rows
        self.prefix, self.patch, self.size = prefix, patch, size

    def write(self, chosen: Sequence[int]) -> dict[int, Written]:
        """Answers to the chosen questions; what is known to be the target is not written."""
        found: dict[int, Written] = {}
        # What looks at more than weights (a memory) may act otherwise as a text grows.
        if isinstance(self.patch, Patch):
            known = [i for i in chosen if self.rows[i][self.prefix + "tf_exact"] == 1]
            pairs = [(self.asked[i].prompt, self.asked[i].target) for i in known]
            told = zip(known, self.face.completed(pairs) if pairs else [], strict=True)
            found = {i: Written(text, text) for i, text in told if text is not None}
        for part in self._parts([i for i in chosen if i not in found]):
            prompts = [self.asked[i].prompt for i in part]
            with applied(self.face.model, self.patch, self._edits(part)):
                answers = self.face.write(prompts, [self._length(i) for i in part])
            found |= zip(part, answers, strict=True)
        return found

    def _length(self, i: int) -> int:
        """Tokens of a question's target."""
        return int(self.rows[i]["n_tokens"])  # type: ignore[call-overload,no-any-return]

    def _edits(self, part: Sequence[int]) -> torch.Tensor:
        return torch.tensor([self.asked[i].edit for i in part], device=self.face.device)

    def _parts(self, chosen: Sequence[int]) -> Iterator[list[int]]:
        """Batches alike in the tokens to write, then in the length to read: little is padding."""
        order = sorted(chosen, key=lambda i: (self._length(i), len(self.asked[i].prompt), i))
        for start in range(0, len(order), self.size):
            yield sorted(order[start : start + self.size])


def _choose(labels: Sequence[str], asked: Sequence[Asked], rows: Sequence[Row]) -> None:
    """Free answers out of two labels: teacher forcing has told already which it is."""
    for question, row in zip(asked, rows, strict=True):
        for prefix in ("", "pre_"):
            said = {1.0: question.target, 0.0: labels[question.target == labels[0]]}
            text = said.get(row[prefix + "tf_exact"], "")  # type: ignore[call-overload]
            row |= _judged(prefix, Written(text, text), question.target)


def _judged(prefix: str, answer: Written, target: str) -> Row:
    wanted = target.strip()
    right = answer.opening.strip() == wanted
    return {
        prefix + "gen_text": answer.opening if right else answer.text,
        prefix + "gen_exact": float(right),
        prefix + "gen_contains": float(wanted in answer.text),
    }
