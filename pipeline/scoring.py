"""Cases and an editor's patch -> outcome rows: every probe before and after the edit.

One row for each case and probe, measured under teacher forcing and in free generation, on the
edited and on the unedited model side by side. Each row of a batch sees its own case's edit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pipeline import answers, generation, measures
from pipeline.editing.patch import Intervention, Patch, applied
from pipeline.models import Face, forks
from pipeline.models.lower import Lower
from pipeline.questions import Asked, questions
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
        texts: which cases write freely about their subject, and how long.
        most: when so many cases are scored, no further group of edits made at once is begun;
            None: all cases.
    """

    cases: int = 50
    rows: int = 200
    generate: bool = True
    split: Literal["validation", "correction"] = "validation"
    texts: generation.Config = field(default_factory=generation.Config)
    most: int | None = None


def score(
    face: Face,
    cases: Sequence[Case],
    patch: Intervention,
    config: Config,
    edits: Sequence[int] | None = None,
    original: Face | None = None,
) -> list[Row]:
    """Outcome rows of `cases`, in the order of cases and their probes, whatever the batches were.

    Args:
        edits: for each case, the patch's row that its probes see; its own number by default.
        original: the model that `face` was trained from (ENN). Rows then also hold what it says
            under teacher forcing: `orig_*` beside `pre_*`, where `orig_kl` and `orig_argmax_agree`
            compare it with the edited one.
    """
    edits = range(len(cases)) if edits is None else edits
    asked = [
        question
        for number, (case, edit) in enumerate(zip(cases, edits, strict=True))
        for question in questions(case, number, edit)
    ]
    rows = [_identity(cases[question.case], question) for question in asked]
    for part in _by_length(asked, config.rows):
        edit_B = _edits(face, asked, part)
        found = _measure(face, asked, part, patch, edit_B, original)
        for place, measured in zip(part, found, strict=True):
            rows[place] |= measured
    if config.generate:
        answers.write(face, asked, rows, patch, config.rows)
    for row in rows:
        row["collapsed"] = _collapsed(row)
    if config.generate:
        asked_texts = generation.openings(face, cases, edits, config.texts)
        before = generation.write(face, asked_texts, config.texts, config.rows)
        after = generation.write(face, asked_texts, config.texts, config.rows, patch)
        rows += generation.outcome_rows(asked_texts, before, after)
    return rows


def _edits(face: Face, asked: Sequence[Asked], part: Sequence[int]) -> Tensor:
    """Which row of the patch each probe of a batch sees."""
    return torch.tensor([asked[i].edit for i in part], device=face.device)


def _identity(case: Case, asked: Asked) -> Row:
    return {
        "case_id": case.id,
        "probe": asked.kind,
        "index": asked.index,
        "prompt": asked.prompt,
        "target": asked.target,
    }


def _by_length(asked: Sequence[Asked], size: int) -> Iterator[list[int]]:
    """Batches of similar length: little padding. Within one, probes of a case stand together."""
    lengths = [len(question.prompt) + len(question.target) for question in asked]
    order = sorted(range(len(asked)), key=lambda i: (lengths[i], i))
    for start in range(0, len(order), size):
        yield sorted(order[start : start + size])


@torch.no_grad()
def _measure(
    face: Face,
    asked: Sequence[Asked],
    part: Sequence[int],
    patch: Intervention,
    edit_B: Tensor,
    original: Face | None,
) -> list[Row]:
    fork = _forks(face, asked, part, patch)
    batch, rows_B = fork.first, edit_B[fork.row_B]
    sites = patch.updates if isinstance(patch, Patch) else ()
    lower = Lower(face.model, sites)
    with lower.kept():
        before_NV, before_rival_NV = fork.split(face.logits(fork.whole))
    with applied(face.model, patch, rows_B), lower.reused():
        after_NV, after_rival_NV = fork.split(face.logits(fork.whole))
    found: Measure = {"n_tokens": measures.tokens(batch)}
    models = {"": after_NV, "pre_": before_NV}
    rivals = {"": after_rival_NV, "pre_": before_rival_NV}
    if original is not None:
        models["orig_"], rivals["orig_"] = fork.split(original.logits(fork.whole))
    said = {prefix: logits_NV.argmax(-1) for prefix, logits_NV in models.items()}
    for prefix, logits_NV in models.items():
        right_B = measures.likeness(said[prefix], batch.label_N, batch)
        whole_B, loss_B = (right_B == 1).float(), measures.nll(logits_NV, batch)
        broken_B = measures.finite(logits_NV, batch) == 0
        forced = {"tf_token_acc": right_B, "tf_exact": whole_B, "nll": loss_B}
        for name, value_B in forced.items():
            found[prefix + name] = value_B.masked_fill(broken_B, math.nan)
    found["kl"] = measures.kl(before_NV, after_NV, batch)
    found["argmax_agree"] = measures.likeness(said["pre_"], said[""], batch)
    if original is not None:
        found["orig_kl"] = measures.kl(models["orig_"], after_NV, batch)
        found["orig_argmax_agree"] = measures.likeness(said["orig_"], said[""], batch)
    columns = [_list(values) for values in found.values()]
    rows = [dict(zip(found, values, strict=True)) for values in zip(*columns, strict=True)]
    losses = {prefix: iter(_list(measures.nll(rivals[prefix], fork.second))) for prefix in models}
    for place, row in zip(part, rows, strict=True):
        about_new = asked[place].kind in ("edit", "rephrase")
        own, other = ("nll_new", "nll_true") if about_new else ("nll_true", "nll_new")
        for prefix in models:
            row[prefix + own] = row.pop(prefix + "nll")
            row[prefix + other] = next(losses[prefix]) if asked[place].rival else math.nan
    return rows


def _list(values: Tensor) -> list[float]:
    return list(values.tolist())


def _forks(
    face: Face, asked: Sequence[Asked], part: Sequence[int], patch: Intervention
) -> forks.Forks:
    """Each probe with its target, and with the other target where there is one."""
    own = face.tokenise([(asked[i].prompt, asked[i].target) for i in part])
    chosen = [(asked[i].prompt, asked[i].rival) for i in part if asked[i].rival]
    other = iter(face.tokenise(chosen) if chosen else [])
    rivals = [next(other) if asked[i].rival else None for i in part]
    # What looks at more than weights (a memory) is to see each text by itself.
    return forks.collate(face, own, rivals, packed=isinstance(patch, Patch))


def _collapsed(row: Row) -> bool:
    """Broken logits, or no answer at all where the unedited model has one."""
    after, before = row.get("gen_text"), row.get("pre_gen_text")
    silent = isinstance(after, str) and not after.strip() and bool(str(before).strip())
    return math.isnan(float(row["tf_exact"])) or silent  # type: ignore[arg-type]
