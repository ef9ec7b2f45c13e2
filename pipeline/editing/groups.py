"""Edits made k at a time: which ones go together, and which probes they leave to judge them by.

A probe that should stay as it was judges nothing where another edit of its group changes just that
fact. Such a bystander is taken out, in training as in evaluation, by one rule: its text asks what
an edit of the group asks, in any of that edit's wordings, or it speaks of another edit's subject
(which a hard neighbour may: it is about a subject being edited by its very nature).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import EditorError
from pipeline.records import Case, Probe, normalise


def whole(cases: Sequence[Case], k: int) -> list[Sequence[Case]]:
    """Groups of k consecutive cases, in their order; what fills no group is left out.

    Raises:
        EditorError: there is not even one group.
    """
    groups = [cases[start : start + k] for start in range(0, len(cases) - k + 1, k)]
    if not groups:
        raise EditorError(
            expected=f"at least {k} cases to make {k} edits at once",
            found=str(len(cases)),
            remedy="Lower k (`plan.ks`, or `outer.k` in training), or ask for more cases.",
        )
    return groups


def of_relations(cases: Sequence[Case], k: int, relations: int) -> list[Sequence[Case]]:
    """Groups of k cases of so many relations, in equal shares; what fills no group is left out.

    Each group takes the relations that have most cases left, so that few are left out; the first
    take one case more where k has a remainder.

    Raises:
        EditorError: too few relations have enough cases for one group.
    """
    assert 1 <= relations <= k
    left: dict[str, list[Case]] = {}
    for case in cases:
        if case.relation:
            left.setdefault(case.relation, []).append(case)
    shares = [len(range(place, k, relations)) for place in range(relations)]
    pools = [*left.values(), *([] for _ in shares)]
    found: list[Sequence[Case]] = []
    while True:
        pools.sort(key=len, reverse=True)
        chosen = list(zip(pools[:relations], shares, strict=True))
        if any(len(pool) < share for pool, share in chosen):
            break
        found.append([pool.pop(0) for pool, share in chosen for _ in range(share)])
    if not found:
        wanted, most = (" and ".join(map(str, n)) for n in (shares, [len(p) for p, _ in chosen]))
        raise EditorError(
            expected=f"relations with at least {wanted} cases to edit at once",
            found=f"at most {most}",
            remedy="Lower k (`plan.ks`), empty plan.relations, or ask for more cases.",
        )
    return found


def chunks(cases: Sequence[Case], size: int, k: int = 1) -> Iterator[Sequence[Case]]:
    """Consecutive parts of about `size` cases, made of whole groups of k; the rest is left out."""
    size = max(1, size // k) * k
    for start in range(0, len(cases) // k * k, size):
        yield cases[start : min(start + size, len(cases) // k * k)]


@dataclass(frozen=True)
class Touched:
    """What the edits of one group are about: by case, its wordings and its subject."""

    wordings: dict[str, str]  # normalised text -> id of the case that edits it
    subjects: frozenset[str]  # normalised

    def spares(self, case: Case, probe: Probe, *, near: bool = False) -> bool:
        """Whether no other edit of the group is about this probe of `case`.

        Args:
            near: the probe may speak of an edited subject (a hard neighbour), only not ask what
                an edit asks.
        """
        text = normalise(probe.prompt or probe.target)  # passages have no prompt
        if self.wordings.get(text, case.id) != case.id:
            return False
        others = self.subjects - {normalise(case.subject)}
        return near or not any(name in text and _speaks_of(text, name) for name in others)


def touched(group: Sequence[Case]) -> Touched:
    """What a group's edits are about.

    Raises:
        EditorError: two of them give one prompt different targets.
    """
    wordings: dict[str, str] = {}
    asked: dict[str, Case] = {}
    for case in group:
        first = asked.setdefault(normalise(case.prompt), case)
        if first.target_new != case.target_new:
            raise EditorError(
                expected="edits made at once to agree with each other",
                found=f"{first.id} and {case.id} give {case.prompt!r} different targets",
                remedy="Drop one of them, or lower k so that they fall into different groups.",
            )
        for text in (case.prompt, *case.rephrases):
            wordings[normalise(text)] = case.id
    subjects = frozenset(normalise(case.subject) for case in group)
    return Touched(wordings, subjects - {""})


def judged(group: Sequence[Case]) -> tuple[list[Case], int]:
    """The cases of a group without the bystanders that its other edits are about.

    The probes that are left are numbered anew, so a probe may have another `index` here than in
    runs of other k; edits, rephrasings and implied facts are never taken out.

    Returns:
        The cases, and how many probes were taken out.

    Raises:
        EditorError: edits of the group contradict each other.
    """
    if len(group) == 1:
        return list(group), 0
    about = touched(group)
    kept = [
        replace(
            case,
            neighbours=tuple(p for p in case.neighbours if about.spares(case, p)),
            hard_neighbours=tuple(
                p for p in case.hard_neighbours if about.spares(case, p, near=True)
            ),
            unrelated=tuple(p for p in case.unrelated if about.spares(case, p)),
        )
        for case in group
    ]
    return kept, sum(map(_bystanders, group)) - sum(map(_bystanders, kept))


def spared(group: Sequence[Case], *, hard: bool = False) -> list[tuple[Probe, ...]]:
    """For each case of a group, the unrelated examples that no other edit of it is about.

    Where a case has none left it takes those of the whole group.

    Args:
        hard: a case's neighbours and hard neighbours count as well.

    Raises:
        EditorError: edits contradict each other, or all unrelated examples are about edits.
    """
    if hard:
        group = [
            replace(case, unrelated=(*case.unrelated, *case.neighbours, *case.hard_neighbours))
            for case in group
        ]
    if len(group) == 1 and group[0].unrelated:
        return [group[0].unrelated]
    about = touched(group)
    own = [tuple(p for p in case.unrelated if about.spares(case, p)) for case in group]
    everybody = tuple(probe for probes in own for probe in probes)
    if not everybody:
        raise EditorError(
            expected=f"an unrelated example that no edit of a group of {len(group)} is about",
            found="none",
            remedy="Give the training cases more unrelated examples, or lower `outer.k`.",
        )
    return [probes or everybody for probes in own]


def _speaks_of(text: str, name: str) -> bool:
    """Whether a name stands in a text as whole words."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _bystanders(case: Case) -> int:
    return len(case.neighbours) + len(case.hard_neighbours) + len(case.unrelated)
