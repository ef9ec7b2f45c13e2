"""Checks that stop a run whose cases would make its evaluation meaningless."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.errors import AuditError
from pipeline.records import LABELS, Case, normalise

SHOWN = 5  # offenders that an error names

Check = Callable[[Sequence[Case]], list[str]]


def audit(bench: str, cases: Sequence[Case]) -> dict[str, object]:
    """Check the labelled cases of a benchmark, both splits together.

    Returns:
        {"cases": n, "train": n, "validation": n, "checks": {name: cases checked}}.

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
        "subjects shared by train and validation": _shared_subjects,
        "prompts shared by train and validation": _shared_prompts,
        "conflicting edits": _conflicts,
    }
    if bench == "fever":
        checks["targets that are no label"] = lambda cases: _where(
            cases, lambda c: c.target_new not in LABELS
        )
    else:  # half of FEVER's edits confirm what the model says already
        checks["targets equal to the truth"] = lambda cases: _where(cases, _is_true)
    return checks


def _open_subject(bench: str) -> bool:
    """Whether a case may have no subject: real claims and passages do not mark theirs."""
    return bench in ("fever", "wikitext")


def _is_true(case: Case) -> bool:
    new = normalise(case.target_new)
    return new in map(normalise, (case.target_true, *case.answers))


def _where(cases: Iterable[Case], wrong: Callable[[Case], bool]) -> list[str]:
    return [case.id for case in cases if wrong(case)]


def _repeated_ids(cases: Sequence[Case]) -> list[str]:
    return [name for name, n in Counter(case.id for case in cases).items() if n > 1]


def _shared_subjects(cases: Sequence[Case]) -> list[str]:
    train = {normalise(c.subject) for c in cases if c.split == "train"} - {""}
    return _where(cases, lambda c: c.split == "validation" and normalise(c.subject) in train)


def _shared_prompts(cases: Sequence[Case]) -> list[str]:
    """Validation cases whose prompt or a rephrasing is a prompt or rephrasing of train."""

    def texts(case: Case) -> set[str]:
        return {normalise(text) for text in (case.prompt, *case.rephrases)}

    train = {text for case in cases if case.split == "train" for text in texts(case)}
    return _where(cases, lambda c: c.split == "validation" and not train.isdisjoint(texts(c)))


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
