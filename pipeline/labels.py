"""What each edit should say: targets made with the base models, as the papers make theirs.

zsRE: a lower beam of the question-answering model, of the right type and not the truth (De Cao et
al.: beams 2 to 5). FEVER: a fair coin decides between flipping and keeping the model's own label.
Wikitext: ten tokens sampled from a second, smaller language model. CounterFact brings its own.
Corrections of any of them say the truth.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline import measures
from pipeline.errors import SettingsError, near_misses
from pipeline.models import Face
from pipeline.models.causal import Causal
from pipeline.models.seq2seq import Seq2Seq
from pipeline.progress import bar
from pipeline.records import LABELS, Case, Probe, is_true


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the label stage.

    Attributes:
        beams: answers asked of the zsRE model; the lower ones are alternatives.
        answer_tokens: longest answer written.
        sample_tokens: length of a Wikitext target.
        keep_right: keep only those locality probes that the base model gets right, so that
            drawdown measures damage and not ignorance. Passages are always kept.
        rows: prompts at a time.
    """

    beams: int = 5
    answer_tokens: int = 12
    sample_tokens: int = 10
    keep_right: bool = True
    rows: int = 100


@dataclass(frozen=True)
class _Desk:
    """What a labeller works with."""

    face: Face
    sampler: Face | None
    config: Config
    seed: int
    notes: Counter[str]

    def chunks(self, cases: Sequence[Case], what: str) -> Any:
        size = self.config.rows
        starts = range(0, len(cases), size)
        return (cases[start : start + size] for start in bar(starts, what))


def label(
    bench: str,
    cases: Sequence[Case],
    face: Face,
    sampler: Face | None,
    config: Config,
    seed: int,
) -> tuple[list[Case], dict[str, float]]:
    """Give every case its target and the base model's prediction.

    Returns:
        The cases that can be edited, and notes: counts of what was dropped or drawn instead, and
        shares such as `probes_right` (locality probes the base gets right) and, for Wikitext,
        `sampler_agreement` (targets the base would have written itself).

    Raises:
        SettingsError: no labeller is known for this benchmark.
    """
    if bench not in _LABELLERS:
        raise SettingsError(
            expected="a benchmark with a labeller",
            found=repr(bench),
            remedy=near_misses(bench, _LABELLERS),
        )
    desk = _Desk(face, sampler, config, seed, Counter())
    usual = [case for case in cases if case.split != "correction"]
    labelled = [case for case in _LABELLERS[bench](desk, usual) if case.target_new.strip()]
    desk.notes["cases_without_target"] = len(usual) - len(labelled)
    predicted = _predict(desk, labelled)
    corrections = [case for case in cases if case.split == "correction"]
    if corrections:
        predicted += _correct(desk, corrections)
    if config.keep_right:
        predicted = _keep_right(desk, predicted)
    notes: dict[str, float] = dict(desk.notes)
    if sampler is not None:
        same = [case.prediction.strip() == case.target_new.strip() for case in predicted]
        notes["sampler_agreement"] = sum(same) / max(1, len(same))
    return predicted, notes


def _zsre(desk: _Desk, cases: Sequence[Case]) -> list[Case]:
    if all(case.target_new for case in cases):
        return list(cases)  # from the source: any kind of model will do
    known: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        known[case.relation].update((case.target_true, *case.answers))
    assert isinstance(desk.face, Seq2Seq)
    labelled = []
    for part in desk.chunks(cases, "alternatives"):
        prompts = [case.prompt for case in part]
        found = desk.face.beams(prompts, desk.config.answer_tokens, desk.config.beams)
        labelled += [
            replace(case, target_new=_alternative(desk, case, beams[1:], known[case.relation]))
            for case, beams in zip(part, found, strict=True)
        ]
    return labelled


def _alternative(desk: _Desk, case: Case, beams: Sequence[str], known: set[str]) -> str:
    """A beam that is an answer of the same relation but not a true one, drawn by seed.

    A small model's beams can be no answer to anything; then another answer is drawn.
    """
    if case.target_new:
        return case.target_new
    choice = random.Random(f"{desk.seed}/alternative/{case.id}")
    wrong = known - {case.target_true, *case.answers, ""}
    usable = sorted({beam.strip() for beam in beams} & wrong)
    desk.notes["target_from_beam" if usable else "target_drawn_instead"] += 1
    pool = usable or sorted(wrong)
    return choice.choice(pool) if pool else ""


def _fever(desk: _Desk, cases: Sequence[Case]) -> list[Case]:
    labelled = []
    for case in _predict(desk, cases):
        flip = random.Random(f"{desk.seed}/flip/{case.id}").random() < 0.5
        desk.notes["flipped" if flip else "kept"] += 1
        other = LABELS[1 - LABELS.index(case.prediction)]
        labelled.append(replace(case, target_new=other if flip else case.prediction))
    return labelled


def _wikitext(desk: _Desk, cases: Sequence[Case]) -> list[Case]:
    """Samples whose text tokenises back to exactly the length asked for; three tries each."""
    sampler, length = desk.sampler, desk.config.sample_tokens
    assert isinstance(sampler, Causal), "Wikitext's targets need a language model to sample from"
    targets: dict[str, str] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(desk.seed)
        for _ in range(3):
            open_cases = [case for case in cases if case.id not in targets]
            for part in desk.chunks(open_cases, "samples"):
                texts = sampler.sample([case.prompt for case in part], length)
                said = [(c, text) for c, text in zip(part, texts, strict=True) if text.strip()]
                counts = _counts(desk.face, [(case.prompt, text) for case, text in said])
                for (case, text), count in zip(said, counts, strict=True):
                    if count == length:
                        targets[case.id] = text
    return [replace(case, target_new=targets.get(case.id, "")) for case in cases]


def _counterfact(desk: _Desk, cases: Sequence[Case]) -> list[Case]:
    del desk
    return list(cases)


_LABELLERS: dict[str, Callable[[_Desk, Sequence[Case]], list[Case]]] = {
    "zsre": _zsre,
    "fever": _fever,
    "wikitext": _wikitext,
    "counterfact": _counterfact,
}


def _correct(desk: _Desk, cases: Sequence[Case]) -> list[Case]:
    """Of facts that the base model was not taught, those that it gets wrong, with the truth."""
    predicted = _predict(desk, [replace(case, target_new=case.target_true) for case in cases])
    wrong = [case for case in predicted if not is_true(case, case.prediction)]
    desk.notes["corrections_asked"] = len(cases)
    desk.notes["corrections_right_already"] = len(cases) - len(wrong)
    return wrong


def _counts(face: Face, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Tokens of each target."""
    return [len(encoded.labels) for encoded in face.tokenise(pairs)] if pairs else []


def _predict(desk: _Desk, cases: Sequence[Case]) -> list[Case]:
    """The base model's own free answer to every edit prompt."""
    found = []
    for part in desk.chunks(cases, "predictions"):
        asked = [(case.prompt, case.target_new or case.target_true) for case in part]
        lengths = _counts(desk.face, asked)
        answers = desk.face.write([case.prompt for case in part], lengths)
        found += [
            replace(case, prediction=answer.opening)
            for case, answer in zip(part, answers, strict=True)
        ]
    return found


@torch.no_grad()
def _keep_right(desk: _Desk, cases: Sequence[Case]) -> list[Case]:
    """Drop locality probes whose target the base model does not give."""
    kinds = ("neighbours", "hard_neighbours", "unrelated")
    probes = {p for case in cases for kind in kinds for p in getattr(case, kind) if p.prompt}
    ordered = sorted(probes, key=lambda p: (len(p.prompt) + len(p.target), p.prompt, p.target))
    right: set[Probe] = {p for case in cases for p in case.unrelated if not p.prompt}
    size = 2 * desk.config.rows
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        batch = desk.face.encode([(p.prompt, p.target) for p in part])
        hits = measures.exact(desk.face.logits(batch), batch).tolist()
        right.update(p for p, hit in zip(part, hits, strict=True) if hit)
    if ordered:
        desk.notes["probes"] = len(ordered)
        desk.notes["probes_right"] = sum(p in right for p in ordered)
    kept = []
    for case in cases:
        parts: dict[str, Any] = {
            kind: tuple(p for p in getattr(case, kind) if p in right) for kind in kinds
        }
        if case.unrelated and not parts["unrelated"]:
            desk.notes["cases_without_right_probe"] += 1
            continue
        kept.append(replace(case, **parts))
    return kept
