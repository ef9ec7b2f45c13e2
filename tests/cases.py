"""Hand-made cases for tiny random models."""

from __future__ import annotations

from conftest import pairs_for

from pipeline.models import Face
from pipeline.records import Case, Probe, Split

SUBJECTS = ("Ada Verrin", "Tom Asker", "Lisbon", "The harbour")


def make_cases(face: Face, count: int = 6, split: Split = "train") -> list[Case]:
    """Edits with one rephrase and two bystanders each, of unequal lengths."""
    pairs = pairs_for(face)
    cases = []
    for number in range(count):
        prompt, target = pairs[number % len(pairs)]
        other = pairs[(number + 1) % len(pairs)]
        last = pairs[(number + 2) % len(pairs)]
        cases.append(
            Case(
                id=f"case-{number}",
                prompt=prompt,
                target_new=target,
                target_true=other[1],
                subject=next(name for name in SUBJECTS if name in prompt),
                prediction=other[1],
                rephrases=(f"Say: {prompt}",),
                neighbours=(Probe(*last),),
                unrelated=(Probe(*other), Probe(*last)),
                split=split,
            )
        )
    return cases
