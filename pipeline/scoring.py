"""Cases and an editor's patch -> outcome rows: every probe before and after the edit.

One row for each case and probe, measured under teacher forcing and in free generation, on the
edited and on the unedited model side by side. Each row of a batch sees its own case's edit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline import measures
from pipeline.models import Batch, Face, Written
from pipeline.patch import Patch, applied
from pipeline.records import Case

Row = dict[str, object]
Measure = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of scoring.

    Attributes:
        cases: edits scored at once.
        rows: probes in one forward pass.
        generate: whether to answer freely too, without the target at hand.
        split: which cases are scored: those held out, or corrections.
    """

    cases: int = 50
    rows: int = 200
    generate: bool = True
    split: Literal["validation", "correction"] = "validation"


@dataclass(frozen=True)
class Asked:
    """One probe of one case: what is asked, what should follow, and which edit it sees."""

    case: int
    kind: str
    index: int
    prompt: str
    target: str
    rival: str  # the text whose likelihood is compared with the target's; "" for none

    @property
    def passage(self) -> bool:
        """A text without a question: nothing to generate, perplexity over all of it."""
        return not self.prompt


def questions(case: Case, number: int) -> Iterator[Asked]:
    """Every probe of a case, the edit itself first.

    The new answer competes with the true one; where it is the true one, with what the model said.
    """
    new = case.target_new
    old = case.prediction if case.split == "correction" else case.target_true
    yield Asked(number, "edit", 0, case.prompt, new, old)
    for index, prompt in enumerate(case.rephrases):
        yield Asked(number, "rephrase", index, prompt, new, old)
    for kind, probes, rival in (
        ("neighbour", case.neighbours, new),
        ("hard_neighbour", case.hard_neighbours, ""),
        ("unrelated", case.unrelated, ""),
        ("implied", case.implied, ""),
    ):
        for index, probe in enumerate(probes):
            yield Asked(number, kind, index, probe.prompt, probe.target, rival)


def score(face: Face, cases: Sequence[Case], patch: Patch, config: Config) -> list[Row]:
    """Outcome rows of `cases`; case i sees the patch's row i, or its only row.

    Rows come in the order of cases and their probes, whatever the batches were.
    """
    asked = [question for number, case in enumerate(cases) for question in questions(case, number)]
    rows = [_identity(cases[question.case], question) for question in asked]
    joint = patch.rows == 1 < len(cases)
    for part in _by_length(asked, config.rows):
        edit_B = torch.tensor([0 if joint else asked[i].case for i in part], device=face.device)
        for place, measured in zip(part, _measure(face, asked, part, patch, edit_B), strict=True):
            rows[place] |= measured
    if config.generate:
        _generate(face, asked, rows, patch, joint, config)
    for row in rows:
        row["collapsed"] = _collapsed(row)
    return rows


def _identity(case: Case, asked: Asked) -> Row:
    return {
        "case_id": case.id,
        "probe": asked.kind,
        "index": asked.index,
        "prompt": asked.prompt,
        "target": asked.target,
    }


def _by_length(asked: Sequence[Asked], size: int) -> Iterator[list[int]]:
    """Batches of similar length: little padding."""
    lengths = [len(question.prompt) + len(question.target) for question in asked]
    order = sorted(range(len(asked)), key=lambda i: (lengths[i], i))
    for start in range(0, len(order), size):
        yield order[start : start + size]


@torch.no_grad()
def _measure(
    face: Face, asked: Sequence[Asked], part: Sequence[int], patch: Patch, edit_B: Tensor
) -> list[Row]:
    batch = face.encode([(asked[i].prompt, asked[i].target) for i in part])
    before_NV = face.logits(batch)
    with applied(face.model, patch, edit_B):
        after_NV = face.logits(batch)
    found: Measure = {"n_tokens": measures.tokens(batch)}
    for prefix, logits_NV in (("", after_NV), ("pre_", before_NV)):
        broken_B = measures.finite(logits_NV, batch) == 0
        for name, function in _TEACHER_FORCED.items():
            found[prefix + name] = function(logits_NV, batch).masked_fill(broken_B, math.nan)
    found["kl"] = measures.kl(before_NV, after_NV, batch)
    found["argmax_agree"] = measures.agreement(before_NV, after_NV, batch)
    rival = _rivals(face, asked, part, patch, edit_B)
    columns = [_list(values) for values in found.values()]
    rows = [dict(zip(found, values, strict=True)) for values in zip(*columns, strict=True)]
    for place, row in zip(part, rows, strict=True):
        about_new = asked[place].kind in ("edit", "rephrase")
        own, other = ("nll_new", "nll_true") if about_new else ("nll_true", "nll_new")
        for prefix in ("", "pre_"):
            row[prefix + own] = row.pop(prefix + "nll")
            row[prefix + other] = rival.get(place, {}).get(prefix, math.nan)
    return rows


_TEACHER_FORCED: dict[str, Callable[[Tensor, Batch], Tensor]] = {
    "tf_token_acc": measures.token_accuracy,
    "tf_exact": measures.exact,
    "nll": measures.nll,
}


def _list(values: Tensor) -> list[float]:
    return list(values.tolist())


def _rivals(
    face: Face, asked: Sequence[Asked], part: Sequence[int], patch: Patch, edit_B: Tensor
) -> dict[int, dict[str, float]]:
    """Likelihoods of the other target, where there is one."""
    chosen = [(i, row) for row, i in enumerate(part) if asked[i].rival]
    if not chosen:
        return {}
    batch = face.encode([(asked[i].prompt, asked[i].rival) for i, _ in chosen])
    before = measures.nll(face.logits(batch), batch).tolist()
    with applied(face.model, patch, edit_B[[row for _, row in chosen]]):
        after = measures.nll(face.logits(batch), batch).tolist()
    return {
        i: {"": new, "pre_": old} for (i, _), new, old in zip(chosen, after, before, strict=True)
    }


def _generate(
    face: Face, asked: Sequence[Asked], rows: list[Row], patch: Patch, joint: bool, config: Config
) -> None:
    """Free answers, before and after, as long as the target at hand needs."""
    for row in rows:
        for prefix in ("", "pre_"):
            row |= {prefix + "gen_text": None, prefix + "gen_exact": math.nan}
            row[prefix + "gen_contains"] = math.nan
    open_ended = [i for i, question in enumerate(asked) if not question.passage]
    open_ended.sort(key=lambda i: (int(rows[i]["n_tokens"]), len(asked[i].prompt), i))  # type: ignore[call-overload]
    for start in range(0, len(open_ended), config.rows):
        part = open_ended[start : start + config.rows]
        prompts = [asked[i].prompt for i in part]
        lengths = [int(rows[i]["n_tokens"]) for i in part]  # type: ignore[call-overload]
        edit_B = torch.tensor([0 if joint else asked[i].case for i in part], device=face.device)
        before = face.write(prompts, lengths)
        with applied(face.model, patch, edit_B):
            after = face.write(prompts, lengths)
        for i, new, old in zip(part, after, before, strict=True):
            rows[i] |= _judged("", new, asked[i].target)
            rows[i] |= _judged("pre_", old, asked[i].target)


def _judged(prefix: str, answer: Written, target: str) -> Row:
    wanted = target.strip()
    return {
        prefix + "gen_text": answer.text,
        prefix + "gen_exact": float(answer.opening.strip() == wanted),
        prefix + "gen_contains": float(wanted in answer.text),
    }


def _collapsed(row: Row) -> bool:
    """Broken logits, or nothing at all where an answer was asked for."""
    silent = isinstance(row.get("gen_text"), str) and not str(row["gen_text"]).strip()
    return math.isnan(float(row["tf_exact"])) or silent  # type: ignore[arg-type]
