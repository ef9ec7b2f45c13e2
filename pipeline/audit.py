"""Checks that stop a run whose cases would make its evaluation meaningless."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import get_args

from pipeline.errors import AuditError
from pipeline.records import LABELS, Case, Split, is_true, normalise

SHOWN = 5  # offenders that an error names

Check = Callable[[Sequence[Case]], list[str]]


def audit(bench: str, cases: Sequence[Case]) -> dict[str, object]:
    """Check the labelled cases of a benchmark, all splits together.

    Returns:
        {"cases": n, "train": n, "validation": n, "checks": {name: cases checked}}, and
        "correction": n where there are any.

    Raises:
        AuditError: a check failed; the error names the check and the first offenders.
    """
    if not cases:
        raise AuditError(
            expected=f"cases of {bench}",
            found="none",
            remedy="Ask for more cases in the settings of its data, then run dvc repro.",
        )
    checks = _checks(bench)
    for name, check in checks.items():
        offenders = check(cases)
        if offenders:
            shown = "; ".join(offenders[:SHOWN])
            more = f" and {len(offenders) - SHOWN} more" if len(offenders) > SHOWN else ""
            raise AuditError(
                expected=f"cases of {bench} without {name}",
                found=f"{len(offenders)} of them: {shown}{more}",
                remedy="Correct or drop them in the raw files, or mend the stage that made them.",
            )
    splits = Counter(case.split for case in cases)
    return {
        "cases": len(cases),
        "train": splits["train"],
        "validation": splits["validation"],
        **({"correction": splits["correction"]} if splits["correction"] else {}),
        "checks": dict.fromkeys(checks, len(cases)),
    }


def _checks(bench: str) -> Mapping[str, Check]:
    checks: dict[str, Check] = {
        "repeated ids": _repeated_ids,
        "empty prompts": lambda cases: _where(cases, lambda c: not c.prompt.strip()),
        "empty targets": lambda cases: _where(cases, lambda c: not c.target_new.strip()),
        "subjects missing from their prompts": lambda cases: _where(
            cases, lambda c: c.subject not in c.prompt or not (c.subject or _open_subject(bench))
        ),
        "rephrasings equal to their prompts": lambda cases: _where(
            cases, lambda c: normalise(c.prompt) in map(normalise, c.rephrases)
        ),
        "subjects shared by splits": _shared_subjects,
        "prompts shared by splits": _shared_prompts,
        "conflicting edits": _conflicts,
        "corrections to what is not the truth": lambda cases: _where(
            cases, lambda c: c.split == "correction" and c.target_new != c.target_true
        ),
        "corrections of what is right already": lambda cases: _where(
            cases, lambda c: c.split == "correction" and is_true(c, c.prediction)
        ),
    }
    if bench == "fever":
        checks["targets that are no label"] = lambda cases: _where(
            cases, lambda c: c.target_new not in LABELS
        )
    else:  # half of FEVER's edits confirm what the model says already
        checks["targets equal to the truth"] = lambda cases: _where(
            cases, lambda c: c.split != "correction" and is_true(c, c.target_new)
        )
    return checks


def _open_subject(bench: str) -> bool:
    """Whether a case may have no subject: real claims and passages do not mark theirs."""
    return bench in ("fever", "wikitext")


def _where(cases: Iterable[Case], wrong: Callable[[Case], bool]) -> list[str]:
    return [case.id for case in cases if wrong(case)]


def _repeated_ids(cases: Sequence[Case]) -> list[str]:
    return [name for name, n in Counter(case.id for case in cases).items() if n > 1]


def _shared_subjects(cases: Sequence[Case]) -> list[str]:
    return _shared(cases, lambda case: {normalise(case.subject)} - {""})


def _shared_prompts(cases: Sequence[Case]) -> list[str]:
    """Cases whose prompt or a rephrasing is a prompt or rephrasing of another split."""
    return _shared(cases, lambda case: {normalise(t) for t in (case.prompt, *case.rephrases)})


def _shared(cases: Sequence[Case], texts: Callable[[Case], set[str]]) -> list[str]:
    """Cases with a text of a split that comes before theirs."""
    offenders = []
    before: set[str] = set()
    for split in get_args(Split):
        own = [(case.id, texts(case)) for case in cases if case.split == split]
        offenders += [name for name, found in own if not before.isdisjoint(found)]
        before.update(*(found for _, found in own))
    return offenders


def _conflicts(cases: Sequence[Case]) -> list[str]:
    """Groups of cases that give one prompt different targets."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[normalise(case.prompt)].append(case)
    return [
        " against ".join(case.id for case in group)
        for group in groups.values()
        if len({case.target_new for case in group}) > 1
    ]
